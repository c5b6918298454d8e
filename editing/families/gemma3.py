"""Gemma-3, text only: Gemma-2's block, and norms on queries and keys."""

from dataclasses import replace

from editing.families.gemma2 import GEMMA2
from editing.families.qwen3 import QK_NORMS

GEMMA3 = replace(GEMMA2, label="gemma3", model_types=("gemma3_text",), others=(*GEMMA2.others, *QK_NORMS))
