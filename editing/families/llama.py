"""Llama 3, 3.1 and 3.2, Mistral, SmolLM2; Qwen2 and 2.5 (biases on q, k, v); Qwen3 (norms on q and k)."""

from dataclasses import replace

from editing.families.base import Family, Writer

BLOCK = "model.layers.{layer}."
LLAMA = Family(
    label="llama",
    writers=(
        Writer(BLOCK + "self_attn.o_proj.weight", "attention"),
        Writer(BLOCK + "mlp.down_proj.weight", "mlp"),
    ),
    others=(
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        BLOCK + "input_layernorm.weight",
        BLOCK + "post_attention_layernorm.weight",
        *(BLOCK + f"self_attn.{name}_proj.weight" for name in "qkv"),
        BLOCK + "self_attn.rotary_emb.inv_freq",
        BLOCK + "mlp.gate_proj.weight",
        BLOCK + "mlp.up_proj.weight",
    ),
)
QWEN2 = replace(LLAMA, label="qwen2", others=LLAMA.others + tuple(BLOCK + f"self_attn.{name}_proj.bias" for name in "qkv"))
QWEN3 = replace(LLAMA, label="qwen3", others=LLAMA.others + tuple(BLOCK + f"self_attn.{name}_norm.weight" for name in "qk"))
