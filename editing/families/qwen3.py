"""Qwen3: Llama's tensors, and norms on queries and keys inside the attention."""

from dataclasses import replace

from editing.families.llama import BLOCK, LLAMA

QK_NORMS = (BLOCK + "self_attn.q_norm.weight", BLOCK + "self_attn.k_norm.weight")
QWEN3 = replace(LLAMA, label="qwen3", model_types=("qwen3",), others=(*LLAMA.others, *QK_NORMS))
