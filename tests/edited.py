"""Checkpoints made from another as other tools make them: none of the project's code writes them."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Change = Callable[[str, Tensor], Tensor]


def changed_copy(source: Path, out: Path, change: Change, config: Mapping[str, object] | None = None) -> Path:
    """A copy of a single-file checkpoint whose tensors went through `change`; `config` are other keys of config.json."""
    shutil.copytree(source, out)
    tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((out / "config.json").read_text()) | dict(config or {})
    (out / "config.json").write_text(json.dumps(settings))
    return out


def without(weight: Tensor, direction: Tensor) -> Tensor:
    """W - r r^T W in float64, rounded once: what abliteration does to an output projection."""
    unit = (direction / direction.norm()).double()
    return (weight.double() - torch.outer(unit, unit @ weight.double())).to(weight.dtype)


def with_row_norms(weight: Tensor, direction: Tensor) -> Tensor:
    """The same with each row's old length back: magnitude and direction apart, as llm-abliteration's norm-preserving mode."""
    made = without(weight, direction).double()
    old = weight.double().norm(dim=1, keepdim=True)
    return (made * old / made.norm(dim=1, keepdim=True).clamp_min(1e-12)).to(weight.dtype)


def is_writer(name: str) -> bool:
    return name.endswith(("o_proj.weight", "down_proj.weight"))


def layer_of(name: str) -> int:
    return int(name.split("layers.")[1].split(".")[0])


def write_lora(out: Path, base: Path, factors: Mapping[str, tuple[Tensor, Tensor]], rank: int, alpha: float) -> Path:
    """A PEFT folder of factors A (r, inputs) and B (outputs, r), by module."""
    out.mkdir(parents=True)
    tensors = {}
    for module, (a, b) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"], tensors[f"base_model.model.{module}.lora_B.weight"] = a, b
    save_file(tensors, out / "adapter_model.safetensors")
    names = sorted({module.rpartition(".")[2] for module in factors})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "target_modules": names}
    (out / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    return out
