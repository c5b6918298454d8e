"""Arcee (AFM): Llama's tensors; an MLP without a gate."""

from dataclasses import replace

from editing.families.llama import LLAMA

ARCEE = replace(LLAMA, label="arcee", model_types=("arcee",))
