"""Tiny models of the sizes that vLLM's kernels take on every CPU: heads of 64, a width of 128."""

from pathlib import Path
from typing import Any

import torch

from tests.tiny import EDITOR_CONFIGS, NEAR_CONFIGS, save_tiny

HIDDEN = 128
SIZES = {"hidden_size": HIDDEN, "num_attention_heads": 2, "num_key_value_heads": 1}
OWN_HEADS = ("deepseek_v2", "deepseek_v3")
SERVED_TYPES = [name for name in (*EDITOR_CONFIGS, *NEAR_CONFIGS) if not name.endswith("square")]


def save_served(name: str, folder: Path) -> Path:
    """A float32 model of the type in these sizes; returns the folder."""
    sizes: dict[str, Any] = {"n_embd": HIDDEN, "n_head": 2} if name == "gpt2" else dict(SIZES)
    if "head_dim" in {**EDITOR_CONFIGS, **NEAR_CONFIGS}[name]:
        sizes["head_dim"] = 64
    if name in OWN_HEADS:
        sizes["num_key_value_heads"] = 2
    return save_tiny(name, folder, dtype=torch.float32, sizes=sizes)
