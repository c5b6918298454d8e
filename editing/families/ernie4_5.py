"""ERNIE 4.5 (dense): Llama's tensors; rotary pairs are interleaved, which is no tensor."""

from dataclasses import replace

from editing.families.llama import LLAMA

ERNIE4_5 = replace(LLAMA, label="ernie4_5", model_types=("ernie4_5",), ties_by_default=True)
