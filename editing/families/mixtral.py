"""Mixtral: Llama's attention; experts' w2 stored one by one, or fused as (experts, hidden, input)."""

from dataclasses import replace

from editing.families.base import MLP, Writer
from editing.families.llama import ATTENTION_INPUTS, BLOCK, EMBED, LLAMA, NORMS, O_PROJ

EXPERT = BLOCK + "block_sparse_moe.experts.{expert}."
MIXTRAL = replace(
    LLAMA,
    label="mixtral",
    model_types=("mixtral",),
    writers=(EMBED, O_PROJ, Writer(EXPERT + "w2.weight", MLP), Writer(BLOCK + "mlp.experts.down_proj", MLP, axis=1)),
    others=(
        *(*NORMS, *ATTENTION_INPUTS),
        *(EXPERT + "w1.weight", EXPERT + "w3.weight", BLOCK + "mlp.experts.gate_up_proj"),
        *(BLOCK + "block_sparse_moe.gate.weight", BLOCK + "mlp.gate.weight"),
    ),
)
