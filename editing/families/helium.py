"""Helium: Llama's tensors; rotary pairs are interleaved, which is no tensor."""

from dataclasses import replace

from editing.families.llama import LLAMA

HELIUM = replace(LLAMA, label="helium", model_types=("helium",))
