"""Tiny random models of several towers, of which the text tower is what is edited."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.tiny import GEMMA4_LAYERS, INTERLEAVED, LINEAR, LLAMA_SIZES, TOKENS, WIDE_HEADS

SEES = {
    **{"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"image_size": 28, "patch_size": 14},
}
QWEN_SEES = {"depth": 1, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 48}
TEXT = {**TOKENS, **WIDE_HEADS}
QWEN2_TEXT = {**TOKENS, **LLAMA_SIZES, "rope_scaling": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 1e4}}
QWEN3_TEXT = {**TEXT, "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}}
PROJECTOR = {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
TOWER_CONFIGS: dict[str, dict[str, Any]] = {
    "gemma3": {"text_config": TEXT, "vision_config": SEES, "mm_tokens_per_image": 4},
    "mistral3": {"text_config": {"model_type": "mistral", **TEXT}, "vision_config": {**SEES, "model_type": "pixtral"}},
    "qwen2_vl": {
        "text_config": QWEN2_TEXT,
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 48, "num_heads": 2},
    },
    "qwen2_5_vl": {"text_config": QWEN2_TEXT, "vision_config": QWEN_SEES},
    "qwen3_vl": {"text_config": QWEN3_TEXT, "vision_config": {**QWEN_SEES, "deepstack_visual_indexes": [0]}},
    "qwen3_5": {"text_config": {**TEXT, **LINEAR}, "vision_config": QWEN_SEES},
    "llama4": {"text_config": {**TEXT, **INTERLEAVED}, "vision_config": {**SEES, **PROJECTOR}},
    "gemma4": {
        "text_config": {**TEXT, **GEMMA4_LAYERS, "hidden_size_per_layer_input": 0},
        "vision_config": {**SEES, "head_dim": 16, "num_key_value_heads": 2},
        "audio_config": None,
    },
}


def save_towers(model_type: str, directory: Path) -> Path:
    """A random float32 model of the type, as its publishers save it; returns the folder."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, **TOWER_CONFIGS[model_type])
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name and "experts" not in name:
                parameter.mul_(5)
    model.save_pretrained(directory)
    return directory


def whole_logits(directory: Path, token_ids: torch.Tensor) -> torch.Tensor:
    """Logits of the model with all its towers, for text alone."""
    model = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(input_ids=token_ids).logits
