"""Qwen2 and Qwen2.5: Llama's tensors with biases on q, k and v, which read from the stream."""

from dataclasses import replace

from editing.families.llama import LLAMA

QWEN2 = replace(LLAMA, label="qwen2", model_types=("qwen2",))
