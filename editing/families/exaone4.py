"""EXAONE 4: OLMo-2's tensors, a norm behind each sublayer."""

from dataclasses import replace

from editing.families.olmo2 import OLMO2

EXAONE4 = replace(OLMO2, label="exaone4", model_types=("exaone4",))
