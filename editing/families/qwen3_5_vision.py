"""Qwen3.5 as published: its text tower beside a vision tower."""

from editing.families.base import in_tower
from editing.families.qwen3_5 import QWEN3_5

QWEN3_5_VISION = in_tower(
    QWEN3_5,
    label="qwen3_5_vision",
    model_types=("qwen3_5", "qwen3_5_moe"),
    text_type=None,
    prefixes=("model.language_model.", "language_model.model."),
    heads=("lm_head.weight", "language_model.lm_head.weight"),
    outside=("model.visual.", "visual.", "mtp."),
)
