"""Llama 4 (text): experts fused as (experts, input, hidden) and a shared expert in some blocks, an MLP in the others."""

from dataclasses import replace

from editing.families.base import MLP, Writer, linear_writers
from editing.families.llama import ATTENTION_INPUTS, BLOCK, EMBED, LLAMA, NORMS, O_BIAS, QKV_BIASES

FEED = BLOCK + "feed_forward."
EXPERTS, SHARED = FEED + "experts.", FEED + "shared_expert."
LLAMA4 = replace(
    LLAMA,
    label="llama4",
    model_types=("llama4_text",),
    writers=(
        *(EMBED, *linear_writers(BLOCK + "self_attn.o_proj", FEED + "down_proj"), O_BIAS),
        *(Writer(SHARED + "down_proj.weight", MLP), Writer(EXPERTS + "down_proj", MLP, axis=-1)),
    ),
    others=(
        *(*NORMS, *ATTENTION_INPUTS, *QKV_BIASES, FEED + "router.weight", EXPERTS + "gate_up_proj"),
        *(f"{place}{name}_proj.weight" for place in (FEED, SHARED) for name in ("gate", "up")),
    ),
)
