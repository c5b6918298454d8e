"""Gemma-2: o_proj and down_proj each pass an RMSNorm before the residual add; its gain is 1 + the stored weight."""

from dataclasses import replace

from editing.families.llama import BLOCK, DOWN_PROJ, EMBED, LLAMA, O_PROJ

AFTER_ATTENTION, AFTER_MLP = BLOCK + "post_attention_layernorm.weight", BLOCK + "post_feedforward_layernorm.weight"
GEMMA2 = replace(
    LLAMA,
    label="gemma2",
    model_types=("gemma2",),
    ties_by_default=True,
    writers=(
        EMBED,
        replace(O_PROJ, gain=AFTER_ATTENTION, gain_offset=1.0),
        replace(DOWN_PROJ, gain=AFTER_MLP, gain_offset=1.0),
    ),
    others=(*LLAMA.others, BLOCK + "pre_feedforward_layernorm.weight", AFTER_MLP),
)
