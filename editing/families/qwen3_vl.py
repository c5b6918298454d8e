"""Qwen3-VL (dense): Qwen3's text tower beside a vision tower."""

from editing.families.base import in_tower
from editing.families.qwen3 import QWEN3

QWEN3_VL = in_tower(
    QWEN3,
    label="qwen3_vl",
    model_types=("qwen3_vl",),
    text_type="qwen3",
    prefixes=("model.language_model.", "language_model.model."),
    heads=("lm_head.weight", "language_model.lm_head.weight"),
    outside=("model.visual.", "visual."),
)
