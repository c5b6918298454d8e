"""The edit as a PEFT LoRA, and an adapter merged into weights.

A = alpha Q^T W and B = -Q, so that B A = -alpha Q Q^T W. In front of a norm, what `editing.projection.behind_gain` reads and
writes stands for Q^T and Q. For Linear projections (H, I) alone: PEFT adapts no embedding, bias or fused expert here. With
`lora_alpha` = r the adapter's scale is 1. Factors are rounded to the checkpoint's dtype, so logits are close to the folded
model's, not equal.
"""
# H = hidden size, I = a projection's input size, K = directions (the LoRA's rank)

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editing.apply import edit_of
from editing.checkpoint import Checkpoint
from editing.errors import EditError
from editing.folder import check_free, new_folder, save_edit, save_tensors
from editing.plan import PROJECTIONS, EditPlan, PlannedTensor
from editing.projection import Edit, check_edit
from editing.reading import is_number, read_object, read_tensors

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
LARGEST_RANK = 1 << 20
ADVICE = "Copy or train the adapter again."
MERGE_WITH_PEFT = "Merge it with PEFT (merge_and_unload) and use the merged model."


def check_adaptable(plan: EditPlan, *, keep_norms: bool) -> None:
    """Raise EditError for an edit that a LoRA on Linear layers cannot express."""
    if keep_norms:
        raise EditError("An edit that keeps norms is not of rank k, so it has no adapter form. Write a checkpoint instead.")
    for tensor in plan.edited:
        if tensor.role not in PROJECTIONS or tensor.axis != 0 or len(tensor.shape) != 2:
            raise EditError(f"{tensor.name} ({tensor.role}, {tensor.shape}) has no adapter form. Write a checkpoint instead.")


def lora_factors(checkpoint: Checkpoint, tensor: PlannedTensor, edit: Edit) -> tuple[Tensor, Tensor]:
    """The factors A (K, I) and B (H, K) of one tensor's change, in the checkpoint's dtype."""
    own = edit_of(checkpoint, tensor, edit)
    weight_HI = checkpoint.read(tensor.name)
    factor_KI = own.alpha * (own.read_HK.T @ weight_HI.to(torch.float64))
    return factor_KI.to(weight_HI.dtype), (-own.write_HK).to(weight_HI.dtype)


def write_adapter(
    checkpoint: Checkpoint, plan: EditPlan, edit: Edit, out: Path, *, base_model: str, record: Mapping[str, Any], card: str
) -> None:
    """Write a PEFT adapter folder that PEFT and vLLM load.

    record, card: as for `write_edited`.
    Raises EditError as `write_edited` does, and for an edit that has no adapter form. Nothing half written is left.
    """
    check_edit(edit, checkpoint.hidden_size)
    check_adaptable(plan, keep_norms=edit.keep_norms)
    check_free(out)
    tensors = {}
    for tensor in plan.edited:
        module = PREFIX + tensor.name.removesuffix(".weight")
        tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"] = lora_factors(checkpoint, tensor, edit)
    config = adapter_config(plan, edit, base_model)
    with new_folder(out) as temporary:
        save_tensors(temporary / WEIGHTS_FILE, {name: value.contiguous() for name, value in tensors.items()}, {"format": "pt"})
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        save_edit(temporary, edit, {**record, "form": "adapter"}, card)


def adapter_config(plan: EditPlan, edit: Edit, base_model: str) -> dict[str, Any]:
    """The adapter_config.json that PEFT reads, of an edit. `base_model` is the base's name or path."""
    rank = edit.basis_HK.shape[1]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted({tensor.name.removesuffix(".weight").rpartition(".")[2] for tensor in plan.edited}),
        "layers_to_transform": sorted({tensor.layer for tensor in plan.edited if tensor.layer is not None}),
    }


def read_adapter(directory: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors of each adapted tensor, by the tensor's name: A (K, I), times the adapter's scale, and B (H, K).

    A scale of a module's own (alpha_pattern) is not read. Raises EditError where the folder is damaged, or is no plain LoRA of
    ours or PEFT's.
    """
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (directory / name).is_file()]
    if missing:
        raise EditError(f"{directory} is no adapter folder: it has no {missing[0]}. Expected {CONFIG_FILE} and {WEIGHTS_FILE}.")
    scale = _scale(directory, read_adapter_config(directory))
    tensors = read_tensors(directory / WEIGHTS_FILE, ADVICE)
    ends = (".lora_A.weight", ".lora_B.weight")
    modules = sorted({name.removesuffix(end) for name in tensors for end in ends if name.endswith(end)})
    if beside := sorted({module + end for module in modules for end in ends} ^ tensors.keys()):
        raise EditError(f"{directory} holds more, or less, than both factors of a plain LoRA: see {beside[0]}. {MERGE_WITH_PEFT}")
    factors = {}
    for module in modules:
        factor_KI, factor_HK = (tensors[module + end] for end in ends)
        if not factor_KI.dim() == factor_HK.dim() == 2 or factor_KI.shape[0] != factor_HK.shape[1]:
            shapes = f"{tuple(factor_KI.shape)} and {tuple(factor_HK.shape)}"
            raise EditError(f"{directory}: the factors of {module} are {shapes}; expected (rank, inputs) and (outputs, rank).")
        factors[module.removeprefix(PREFIX) + ".weight"] = scale * factor_KI.double(), factor_HK
    return factors


def read_adapter_config(directory: Path) -> dict[str, Any]:
    """An adapter's configuration. Raises EditError for one that is damaged, and for an adapter that is no plain LoRA."""
    config = read_object(directory / CONFIG_FILE, ADVICE)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise EditError(f"{directory} is an adapter of type {str(kind)[:40]}; expected LORA. {MERGE_WITH_PEFT}")
    if config.get("use_dora"):
        raise EditError(f"{directory} is a DoRA, which scales the weights too; expected a plain LoRA. {MERGE_WITH_PEFT}")
    return config


def _scale(directory: Path, config: Mapping[str, Any]) -> float:
    """What B A is multiplied by: lora_alpha over the rank, or over its root in rsLoRA."""
    rank, alpha = config.get("r"), config.get("lora_alpha", 0.0)
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= LARGEST_RANK or not is_number(alpha):
        raise EditError(f"{directory / CONFIG_FILE}: expected r, a whole number from 1 on, and lora_alpha, a number. {ADVICE}")
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def check_factors(factors: Mapping[str, tuple[Tensor, Tensor]], plan: EditPlan) -> None:
    """Raise EditError unless the factors are those of the plan's edited tensors, each of its tensor's shape."""
    edited = {tensor.name: tensor for tensor in plan.edited}
    if differing := sorted(factors.keys() ^ edited.keys()):
        where = "record" if differing[0] in factors else "weights"
        raise EditError(f"The adapter's {where} lack {differing[0]} ({len(differing)} in all): it is not the edit of its record.")
    for name, (factor_KI, factor_HK) in factors.items():
        if (factor_HK.shape[0], factor_KI.shape[1]) != edited[name].shape:
            found = (factor_HK.shape[0], factor_KI.shape[1])
            raise EditError(f"The adapter's change of {name} has shape {found}; the base's tensor has {edited[name].shape}.")


def merge_factors(weight_HI: Tensor, factor_KI: Tensor, factor_HK: Tensor) -> Tensor:
    """W + B A in float64, rounded once to W's dtype."""
    return (weight_HI.to(torch.float64) + factor_HK.to(torch.float64) @ factor_KI.to(torch.float64)).to(weight_HI.dtype)
