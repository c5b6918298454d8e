"""Qwen3-Next: linear attention in most blocks, whose out_proj writes; experts and a shared expert."""

from dataclasses import replace

from editing.families.base import ATTENTION, Writer
from editing.families.llama import BLOCK
from editing.families.qwen2_moe import QWEN2_MOE

LINEAR = BLOCK + "linear_attn."
STATE = ("A_log", "dt_bias", "conv1d.weight", "norm.weight", "in_proj_ba.weight", "in_proj_qkvz.weight")
QWEN3_NEXT = replace(
    QWEN2_MOE,
    label="qwen3_next",
    model_types=("qwen3_next",),
    writers=(*QWEN2_MOE.writers, Writer(LINEAR + "out_proj.weight", ATTENTION)),
    others=(*QWEN2_MOE.others, *(LINEAR + name for name in STATE)),
    outside=("mtp.",),
)
