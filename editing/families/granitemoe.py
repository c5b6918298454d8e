"""Granite-3 MoE: Llama's attention; experts fused as (experts, hidden, input) under names of their own."""

from dataclasses import replace

from editing.families.base import MLP, Writer
from editing.families.llama import BLOCK, LLAMA

EXPERTS = BLOCK + "block_sparse_moe."
GRANITEMOE = replace(
    LLAMA,
    label="granitemoe",
    model_types=("granitemoe",),
    writers=(*LLAMA.writers, Writer(EXPERTS + "output_linear.weight", MLP, axis=1)),
    others=(*LLAMA.others, EXPERTS + "input_linear.weight", EXPERTS + "router.layer.weight"),
)
