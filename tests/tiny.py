"""Tiny random models of real architectures, with unequal dimensions so that a wrong axis cannot pass."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILY_CONFIGS = {
    "llama": {"head_dim": 16},
    "mistral": {"head_dim": 16},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "phi3": {},
}


def tiny_model(family: str, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Module:
    """A random model of the family; equal calls give equal weights."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(family, **SIZES, **FAMILY_CONFIGS[family])
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def save_tiny(family: str, directory: Path, max_shard_size: str = "1GB") -> Path:
    """Save a tiny model as safetensors; returns the folder."""
    tiny_model(family).save_pretrained(directory, max_shard_size=max_shard_size)
    return directory
