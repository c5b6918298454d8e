"""A converter of Qwen-1 (QWenLMHeadModel) checkpoints into the Qwen2 layout: the same numbers under other names.

vLLM dropped Qwen-1 after 0.23, and its modelling code is remote code; none of that runs here. Up to `seq_length` positions
the two compute the same. Qwen-1's dynamic NTK and log-n scaling start beyond it. They are left out, and the converted
configuration ends there.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from editing.checkpoint import Checkpoint, open_checkpoint, read_header
from editing.errors import EditError
from editing.folder import new_folder, save_tensors
from editing.qwen1_tokenizer import convert_tokenizer
from editing.reading import is_number
from editing.weight_files import INDEX_NAME

TOP = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
# Qwen-1 computes c_proj(w1(x) * silu(w2(x))): w2 is the gate.
BLOCK = {
    "ln_1.weight": "input_layernorm.weight",
    "ln_2.weight": "post_attention_layernorm.weight",
    "attn.c_proj.weight": "self_attn.o_proj.weight",
    "mlp.w1.weight": "mlp.up_proj.weight",
    "mlp.w2.weight": "mlp.gate_proj.weight",
    "mlp.c_proj.weight": "mlp.down_proj.weight",
}
FUSED = {"attn.c_attn.weight": "weight", "attn.c_attn.bias": "bias"}
NAME = re.compile(r"transformer\.h\.(\d+)\.(.+)")
IGNORED = re.compile(r"transformer\.(rotary_emb\.inv_freq|h\.\d+\.attn\.(masked_bias|rotary_emb\.inv_freq))")


def convert_qwen1(source: Path, out: Path) -> None:
    """Write `source` in the Qwen2 layout to `out`, which must not exist. Raises EditError for what is not Qwen-1."""
    checkpoint = open_checkpoint(source)
    config = convert_config(checkpoint.config)
    with new_folder(out) as temporary:
        _write_shards(checkpoint, temporary)
        _write_json(temporary / "config.json", config)
        convert_tokenizer(source, temporary, max_length=config["max_position_embeddings"])
        _write_json(
            temporary / "generation_config.json", {"eos_token_id": [151645, 151643], "pad_token_id": 151643, "do_sample": False}
        )


def convert_config(config: dict[str, Any]) -> dict[str, Any]:
    """A Qwen2 config.json from Qwen-1's. Raises EditError for a setting that Qwen2 cannot reproduce."""
    for key, value in {"model_type": "qwen", "architectures": ["QWenLMHeadModel"]}.items():
        if config.get(key) != value:
            raise EditError(f"Expected a Qwen-1 checkpoint ({key} {value!r}), found {str(config.get(key))[:60]!r}.")
    _check_settings(config)
    width, heads = config["hidden_size"], config["num_attention_heads"]
    expected = {
        "no_bias": True,
        "kv_channels": width // heads,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "tie_word_embeddings": False,
    }
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise EditError(f"Qwen-1 setting {key} = {config[key]}; the Qwen2 layout can hold {value} alone.")
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": width,
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": config["intermediate_size"] // 2,
        "vocab_size": config["vocab_size"],
        "rms_norm_eps": config["layer_norm_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": float(config["rotary_emb_base"])},
        "rope_theta": float(config["rotary_emb_base"]),
        "max_position_embeddings": config["seq_length"],
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "dtype": "bfloat16",
    }


def _check_settings(config: Mapping[str, Any]) -> None:
    for key in ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size", "seq_length"):
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise EditError(f"Qwen-1's config.json needs {key}, a whole number from 1 on. Download it again.")
    for key in ("layer_norm_epsilon", "rotary_emb_base"):
        if not is_number(config.get(key)):
            raise EditError(f"Qwen-1's config.json needs {key}, a number. Download it again.")


def convert_tensor(name: str, tensor: Tensor, hidden_size: int) -> Iterator[tuple[str, Tensor]]:
    """Qwen2 names and tensors of one Qwen-1 tensor: one, three for c_attn, none for a buffer.

    Raises EditError for a tensor that Qwen-1's layout does not have.
    """
    if name in TOP:
        yield TOP[name], tensor
        return
    match = NAME.fullmatch(name)
    if match and match[2] in BLOCK:
        yield f"model.layers.{match[1]}.{BLOCK[match[2]]}", tensor
    elif match and match[2] in FUSED:
        if tensor.shape[:1] != (3 * hidden_size,):
            raise EditError(
                f"Tensor {name} has shape {tuple(tensor.shape)}; expected {3 * hidden_size} rows. Nothing is converted."
            )
        for letter, part in zip("qkv", tensor.split(hidden_size), strict=True):
            yield f"model.layers.{match[1]}.self_attn.{letter}_proj.{FUSED[match[2]]}", part.contiguous()
    elif not IGNORED.fullmatch(name):
        raise EditError(f"Tensor {name} is unknown in Qwen-1's layout; nothing is converted.")


def _write_shards(checkpoint: Checkpoint, target: Path) -> None:
    weight_map: dict[str, str] = {}
    for file in checkpoint.files:
        names = [name for name, entry in checkpoint.tensors.items() if entry.file == file]
        converted = {
            new: part for name in names for new, part in convert_tensor(name, checkpoint.read(name), checkpoint.hidden_size)
        }
        if converted:
            save_tensors(target / file.name, converted, {"format": "pt"})
            weight_map |= dict.fromkeys(converted, file.name)
    if len(set(weight_map.values())) > 1:
        total = sum(entry.end - entry.begin for file in target.glob("*.safetensors") for entry in read_header(file))
        _write_json(target / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})
    else:
        (target / next(iter(weight_map.values()))).rename(target / "model.safetensors")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
