"""Qwen2-VL and Qwen2.5-VL: Qwen2's text tower beside a vision tower."""

from editing.families.base import in_tower
from editing.families.qwen2 import QWEN2

QWEN2_5_VL = in_tower(
    QWEN2,
    label="qwen2_5_vl",
    model_types=("qwen2_vl", "qwen2_5_vl"),
    text_type="qwen2",
    prefixes=("model.", "model.language_model."),
    heads=("lm_head.weight",),
    outside=("visual.", "model.visual."),
)
