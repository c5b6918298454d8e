"""Gemma-4 (text), dense: Gemma-3's block with gains as stored, a scalar a block, and in small sizes inputs per layer.

The sizes with experts pass two norms on their way to the stream and are not listed.
"""

from dataclasses import replace

from editing.families.base import MLP, Writer
from editing.families.gemma2 import AFTER_ATTENTION, AFTER_MLP
from editing.families.gemma3 import GEMMA3
from editing.families.llama import BLOCK, DOWN_PROJ, EMBED, O_PROJ

AFTER_INPUT = BLOCK + "post_per_layer_input_norm.weight"
GEMMA4 = replace(
    GEMMA3,
    label="gemma4",
    model_types=("gemma4_text",),
    writers=(
        *(EMBED, replace(O_PROJ, gain=AFTER_ATTENTION), replace(DOWN_PROJ, gain=AFTER_MLP)),
        Writer(BLOCK + "per_layer_projection.weight", MLP, gain=AFTER_INPUT),
    ),
    others=(
        *(*GEMMA3.others, BLOCK + "layer_scalar", AFTER_INPUT, BLOCK + "per_layer_input_gate.weight"),
        *("model.embed_tokens_per_layer.weight", "model.per_layer_model_projection.weight"),
        "model.per_layer_projection_norm.weight",
    ),
)
