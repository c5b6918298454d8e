"""Llama 4 as published: its text tower beside a vision tower."""

from editing.families.base import in_tower
from editing.families.llama4 import LLAMA4

LLAMA4_VISION = in_tower(
    LLAMA4,
    label="llama4_vision",
    model_types=("llama4",),
    text_type="llama4_text",
    prefixes=("language_model.model.", "model.language_model."),
    heads=("language_model.lm_head.weight", "lm_head.weight"),
    outside=("vision_model.", "multi_modal_projector.", "model.vision_model.", "model.multi_modal_projector."),
)
