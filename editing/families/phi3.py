"""Phi-3: Llama's writers; q, k and v fused into qkv_proj, gate and up into gate_up_proj."""

from dataclasses import replace

from editing.families.llama import BLOCK, LLAMA

PHI3 = replace(
    LLAMA,
    label="phi3",
    others=(
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        BLOCK + "input_layernorm.weight",
        BLOCK + "post_attention_layernorm.weight",
        BLOCK + "self_attn.qkv_proj.weight",
        BLOCK + "mlp.gate_up_proj.weight",
    ),
)
