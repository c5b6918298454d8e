"""GLM-4-0414: GLM's tensors, and an RMSNorm behind each sublayer; its gain is the stored weight."""

from dataclasses import replace

from editing.families.glm import GLM
from editing.families.llama import BLOCK, DOWN_PROJ, EMBED, O_PROJ

AFTER_ATTENTION, AFTER_MLP = BLOCK + "post_self_attn_layernorm.weight", BLOCK + "post_mlp_layernorm.weight"
GLM4 = replace(
    GLM,
    label="glm4",
    model_types=("glm4",),
    writers=(EMBED, replace(O_PROJ, gain=AFTER_ATTENTION), replace(DOWN_PROJ, gain=AFTER_MLP)),
    others=(*GLM.others, AFTER_ATTENTION, AFTER_MLP),
)
