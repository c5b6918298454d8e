"""Qwen2-MoE (Qwen1.5-MoE): Qwen2's attention, Qwen3-MoE's experts, and a shared expert that every token passes."""

from dataclasses import replace

from editing.families.base import MLP, Writer
from editing.families.llama import BLOCK
from editing.families.qwen2 import QWEN2
from editing.families.qwen3_moe import QWEN3_MOE

SHARED = BLOCK + "mlp.shared_expert"
QWEN2_MOE = replace(
    QWEN3_MOE,
    label="qwen2_moe",
    model_types=("qwen2_moe",),
    writers=(*QWEN3_MOE.writers, Writer(f"{SHARED}.down_proj.weight", MLP)),
    others=(
        *(*QWEN3_MOE.others, *QWEN2.others),
        *(f"{SHARED}.gate_proj.weight", f"{SHARED}.up_proj.weight", f"{SHARED}_gate.weight"),
    ),
)
