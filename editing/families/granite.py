"""Granite 3 and 4 (dense): Llama's tensors; what a block writes is scaled by a number, which leaves its direction as it is."""

from dataclasses import replace

from editing.families.llama import LLAMA

GRANITE = replace(LLAMA, label="granite", model_types=("granite",))
