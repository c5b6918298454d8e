"""OLMo-2: no norm before the sublayers, an RMSNorm behind each; its gain is the stored weight."""

from dataclasses import replace

from editing.families.gemma2 import AFTER_ATTENTION, AFTER_MLP
from editing.families.llama import ATTENTION_INPUTS, DOWN_PROJ, EMBED, LLAMA, MLP_INPUTS, O_PROJ
from editing.families.qwen3 import QK_NORMS

OLMO2 = replace(
    LLAMA,
    label="olmo2",
    model_types=("olmo2",),
    writers=(EMBED, replace(O_PROJ, gain=AFTER_ATTENTION), replace(DOWN_PROJ, gain=AFTER_MLP)),
    others=("model.norm.weight", AFTER_ATTENTION, AFTER_MLP, *ATTENTION_INPUTS, *MLP_INPUTS, *QK_NORMS),
)
