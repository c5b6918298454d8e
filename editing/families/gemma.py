"""Gemma (1): Llama's tensors and order of norms. The embedding is scaled by sqrt(hidden size), which leaves its
direction as it is. Gemma-2 and -3 put a norm behind the projections and have files of their own."""

from dataclasses import replace

from editing.families.llama import LLAMA

GEMMA = replace(LLAMA, label="gemma", model_types=("gemma",), ties_by_default=True)
