"""Which tensors of a checkpoint write to the residual stream, one file a family.

`FAMILIES` maps transformers' `model_type` to its Family. A model type that is not here is refused: nothing is guessed.
"""

from editing.families.base import Family, Writer
from editing.families.gemma import GEMMA
from editing.families.llama import LLAMA, QWEN2, QWEN3
from editing.families.phi3 import PHI3

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "phi3": PHI3,
}

__all__ = ["FAMILIES", "Family", "Writer"]
