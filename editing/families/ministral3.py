"""Ministral 3 (text) and its earlier name: Llama's tensors."""

from dataclasses import replace

from editing.families.llama import LLAMA

MINISTRAL3 = replace(LLAMA, label="ministral3", model_types=("ministral3", "ministral"))
