"""Which tensors of a checkpoint write to the residual stream, one file a family.

`FAMILIES` maps transformers' `model_type` to its Family. A model type that is not here is refused: nothing is guessed.
"""

from editing.families.base import Family, Writer
from editing.families.gemma import GEMMA
from editing.families.gemma2 import GEMMA2
from editing.families.gemma3 import GEMMA3
from editing.families.gpt2 import GPT2
from editing.families.gpt_neox import GPT_NEOX
from editing.families.gpt_oss import GPT_OSS
from editing.families.llama import LLAMA
from editing.families.mistral import MISTRAL
from editing.families.mixtral import MIXTRAL
from editing.families.olmo2 import OLMO2
from editing.families.phi3 import PHI3
from editing.families.qwen2 import QWEN2
from editing.families.qwen2_moe import QWEN2_MOE
from editing.families.qwen3 import QWEN3
from editing.families.qwen3_moe import QWEN3_MOE

ALL = (
    *(LLAMA, MISTRAL, QWEN2, QWEN3, PHI3, GEMMA),
    *(GEMMA2, GEMMA3, OLMO2, GPT2, GPT_NEOX, QWEN3_MOE, QWEN2_MOE, MIXTRAL, GPT_OSS),
)
FAMILIES: dict[str, Family] = {model_type: family for family in ALL for model_type in family.model_types}

__all__ = ["FAMILIES", "Family", "Writer"]
