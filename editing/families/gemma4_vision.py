"""Gemma-4 as published: its text tower beside those for images and sound."""

from editing.families.base import in_tower
from editing.families.gemma4 import GEMMA4

TOWERS = ("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.")
GEMMA4_VISION = in_tower(
    GEMMA4,
    label="gemma4_vision",
    model_types=("gemma4",),
    text_type="gemma4_text",
    prefixes=("model.language_model.", "language_model.model."),
    heads=("lm_head.weight", "language_model.lm_head.weight"),
    outside=tuple(place + name for place in ("model.", "") for name in TOWERS),
)
