"""Qwen3.5 (text), dense and with experts: Qwen3-Next's blocks; the linear attention's inputs stored one by one."""

from dataclasses import replace

from editing.families.qwen3_next import LINEAR, QWEN3_NEXT

INPUTS = tuple(LINEAR + f"in_proj_{name}.weight" for name in ("a", "b", "qkv", "z"))
QWEN3_5 = replace(
    QWEN3_NEXT,
    label="qwen3_5",
    model_types=("qwen3_5_text", "qwen3_5_moe_text"),
    others=(*QWEN3_NEXT.others, *INPUTS),
)
