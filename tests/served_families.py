"""Tiny models of the sizes that vLLM's kernels take on every CPU: heads of 64, a width of 128."""

from pathlib import Path
from typing import Any

import torch

from tests.tiny import EDITOR_CONFIGS, NEAR_CONFIGS, save_tiny

HIDDEN = 128
SIZES = {"hidden_size": HIDDEN, "num_attention_heads": 2, "num_key_value_heads": 1}
OWN_HEADS = ("deepseek_v2", "deepseek_v3")
# Types that this comparison does not cover, and what was seen with vLLM 0.32 on a CPU without AVX-512.
NOT_HERE = {
    "gpt_oss": "in test_swap_experts, in sizes that its kernel takes",
    "qwen3 biased": "vLLM leaves o_proj's bias out, so the engine is refused",
    "granitemoe": "vLLM holds its experts under other names, so the swap is refused",
    "phimoe": "transformers fails on it behind vLLM in one process",
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), "latent attention takes published head sizes alone"),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), "linear attention on a CPU requires bf16"),
    **dict.fromkeys(("granitemoehybrid", "granitemoehybrid dense"), "its tiny configuration is refused"),
    "llama4_text": "its experts are turned round and have no biases, which is not probed, so the swap is refused",
    "lfm2_moe": "its configuration does not name the experts' activation where vLLM's layer has it, so the swap is refused",
    "lfm2": "vLLM gives other log-probabilities than transformers, by 0.03 nats; not traced",
}
TYPES = [name for name in (*EDITOR_CONFIGS, *NEAR_CONFIGS) if not name.endswith("square")]
SERVED_TYPES = [name for name in TYPES if name not in NOT_HERE]


def save_served(name: str, folder: Path) -> Path:
    """A float32 model of the type in these sizes; returns the folder."""
    sizes: dict[str, Any] = {"n_embd": HIDDEN, "n_head": 2} if name == "gpt2" else dict(SIZES)
    sizes |= {"qk_layernorm": False} if name == "stablelm" else {}  # vLLM has no norms of heads in its StableLM
    # As published files have them; transformers does not write them any more.
    sizes |= {"conv_dim": HIDDEN, "block_dim": HIDDEN} if name.startswith("lfm2") else {}
    if name == "gpt_neox":  # every head has keys of its own; vLLM would believe a number that transformers does not read
        sizes.pop("num_key_value_heads")
    if name.startswith("gemma4"):
        sizes["global_head_dim"] = 64
    if "head_dim" in {**EDITOR_CONFIGS, **NEAR_CONFIGS}[name]:
        sizes["head_dim"] = 64
    if name in OWN_HEADS:
        sizes["num_key_value_heads"] = 2
    return save_tiny(name, folder, dtype=torch.float32, sizes=sizes)
