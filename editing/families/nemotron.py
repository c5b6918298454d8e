"""Nemotron-4 and Minitron: Llama's tensors without a gate; norms with biases, whose gain is 1 + the stored weight."""

from dataclasses import replace

from editing.families.llama import LLAMA
from editing.families.stablelm import NORM_BIASES

NEMOTRON = replace(LLAMA, label="nemotron", model_types=("nemotron",), others=(*LLAMA.others, *NORM_BIASES))
