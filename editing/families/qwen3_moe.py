"""Qwen3-MoE: Qwen3's attention; experts stored one by one, or fused as (experts, hidden, input); some blocks dense."""

from dataclasses import replace

from editing.families.base import MLP, Writer
from editing.families.llama import BLOCK
from editing.families.qwen3 import QWEN3

EXPERT = BLOCK + "mlp.experts.{expert}."
QWEN3_MOE = replace(
    QWEN3,
    label="qwen3_moe",
    model_types=("qwen3_moe",),
    writers=(
        *QWEN3.writers,
        Writer(EXPERT + "down_proj.weight", MLP),
        Writer(BLOCK + "mlp.experts.down_proj", MLP, axis=1),
    ),
    others=(
        *QWEN3.others,
        *(EXPERT + "gate_proj.weight", EXPERT + "up_proj.weight", BLOCK + "mlp.experts.gate_up_proj"),
        BLOCK + "mlp.gate.weight",
    ),
)
