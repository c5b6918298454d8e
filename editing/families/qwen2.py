"""Qwen2 and Qwen2.5: Llama's tensors, and biases on q, k and v, which read from the stream."""

from dataclasses import replace

from editing.families.llama import BLOCK, LLAMA

QWEN2 = replace(
    LLAMA,
    label="qwen2",
    model_types=("qwen2",),
    others=(*LLAMA.others, *(BLOCK + f"self_attn.{name}_proj.bias" for name in "qkv")),
)
