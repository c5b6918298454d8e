"""Mistral-Small 3.1 and 3.2, Ministral 3: Mistral's text tower beside a vision tower."""

from dataclasses import replace

from editing.families.base import in_tower
from editing.families.mistral import MISTRAL

TOWER = in_tower(
    MISTRAL,
    label="mistral3",
    model_types=("mistral3",),
    text_type=None,
    prefixes=("language_model.model.", "model.language_model."),
    heads=("language_model.lm_head.weight", "lm_head.weight"),
    outside=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
)
MISTRAL3 = replace(TOWER, ties_by_default=True)
