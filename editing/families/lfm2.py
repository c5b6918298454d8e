"""LFM2, dense and with experts: short convolutions in most blocks, whose out_proj writes, and attention in the others."""

from dataclasses import replace

from editing.families.base import ATTENTION, BIAS, MLP, Writer, linear_writers
from editing.families.llama import ATTENTION_INPUTS, BLOCK, EMBED, LLAMA

CONV, ATTENTION_OUT, FEED = BLOCK + "conv.", BLOCK + "self_attn.out_proj", BLOCK + "feed_forward."
EXPERT = FEED + "experts.{expert}."
LFM2 = replace(
    LLAMA,
    label="lfm2",
    model_types=("lfm2", "lfm2_moe"),
    ties_by_default=True,
    writers=(
        *(EMBED, *linear_writers(ATTENTION_OUT, FEED + "w2"), Writer(CONV + "out_proj.weight", ATTENTION)),
        *(Writer(CONV + "out_proj.bias", BIAS, axis=-1), Writer(EXPERT + "w2.weight", MLP)),
        Writer(FEED + "experts.down_proj", MLP, axis=1),
    ),
    others=(
        *("model.embedding_norm.weight", BLOCK + "operator_norm.weight", BLOCK + "ffn_norm.weight", *ATTENTION_INPUTS),
        *(BLOCK + f"self_attn.{name}_layernorm.weight" for name in "qk"),
        *(CONV + name for name in ("conv.weight", "conv.bias", "in_proj.weight", "in_proj.bias")),
        *(FEED + "w1.weight", FEED + "w3.weight", EXPERT + "w1.weight", EXPERT + "w3.weight"),
        *(FEED + "gate.weight", FEED + "expert_bias", FEED + "experts.gate_up_proj"),
    ),
)
