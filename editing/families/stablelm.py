"""StableLM 2: Llama's tensors, norms with biases, and in some sizes norms on queries and keys."""

from dataclasses import replace

from editing.families.llama import BLOCK, LLAMA

NORM_BIASES = ("model.norm.bias", BLOCK + "input_layernorm.bias", BLOCK + "post_attention_layernorm.bias")
PER_HEAD = tuple(BLOCK + f"self_attn.{name}_layernorm.norms.{{expert}}.weight" for name in "qk")
STABLELM = replace(
    LLAMA,
    label="stablelm",
    model_types=("stablelm",),
    others=(*LLAMA.others, *NORM_BIASES, *PER_HEAD),
)
