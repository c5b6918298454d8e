"""OLMo-3: OLMo-2's tensors; most blocks attend to a window."""

from dataclasses import replace

from editing.families.olmo2 import OLMO2

OLMO3 = replace(OLMO2, label="olmo3", model_types=("olmo3",))
