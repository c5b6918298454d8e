"""Mistral: Llama's tensors."""

from dataclasses import replace

from editing.families.llama import LLAMA

MISTRAL = replace(LLAMA, label="mistral", model_types=("mistral",))
