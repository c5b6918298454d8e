"""Command R: Llama's projections, attention and MLP side by side after one norm; norms on queries and keys in some sizes."""

from dataclasses import replace

from editing.families.llama import LLAMA
from editing.families.qwen3 import QK_NORMS

COHERE = replace(LLAMA, label="cohere", model_types=("cohere",), ties_by_default=True, others=(*LLAMA.others, *QK_NORMS))
