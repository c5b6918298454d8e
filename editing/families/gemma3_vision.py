"""Gemma-3 4B to 27B: Gemma-3's text tower beside a vision tower."""

from editing.families.base import in_tower
from editing.families.gemma3 import GEMMA3

GEMMA3_VISION = in_tower(
    GEMMA3,
    label="gemma3",
    model_types=("gemma3",),
    text_type="gemma3_text",
    prefixes=("language_model.model.", "model.language_model."),
    heads=("language_model.lm_head.weight", "lm_head.weight"),
    outside=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
)
