"""Variants beside each other in one transformers model: what each writer's output loses in place of what its weight would."""
# S = slots, H = hidden size, K = directions

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from editing.apply import edit_of
from editing.checkpoint import Checkpoint
from editing.plan import EditPlan, PlannedTensor
from editing.projection import Edit
from engine.models.load import parameter_name
from extraction.beside import Taken


def can_stand_beside(model: Any, checkpoint: Checkpoint, plan: EditPlan) -> bool:
    """Whether every edited tensor is the weight of a linear module, so that what is written stands for what is folded."""
    return all(_is_linear(model, checkpoint, tensor) for tensor in plan.edited)


def removals_of(checkpoint: Checkpoint, plan: EditPlan, edits: Sequence[Edit | None]) -> dict[str, Taken]:
    """What each module's output loses, slot by slot, by module name; None is the base, which loses nothing.

    Equal to the folded weights but for their rounding to the checkpoint's type.
    """
    shared: dict[tuple[str | None, float | None], Taken] = {}
    found = {}
    for tensor in plan.edited:
        key = tensor.gain, tensor.alpha
        if key not in shared:
            shared[key] = _taken(checkpoint, tensor, edits)
        found[_module_name(checkpoint, tensor)] = shared[key]
    return found


def _taken(checkpoint: Checkpoint, tensor: PlannedTensor, edits: Sequence[Edit | None]) -> Taken:
    known = [edit for edit in edits if edit is not None]
    width, most = len(known[0].basis_HK), max(edit.basis_HK.shape[1] for edit in known)
    nothing_HK = torch.zeros(width, most, dtype=torch.float64)
    reads, writes = [], []
    for edit in edits:
        own = None if edit is None else edit_of(checkpoint, tensor, edit)
        reads.append(nothing_HK if own is None else pad(own.read_HK, (0, most - own.read_HK.shape[1])))
        writes.append(nothing_HK if own is None else pad(own.alpha * own.write_HK, (0, most - own.write_HK.shape[1])))
    return Taken(torch.stack(reads), torch.stack(writes))


def _is_linear(model: Any, checkpoint: Checkpoint, tensor: PlannedTensor) -> bool:
    try:
        module = model.get_submodule(_module_name(checkpoint, tensor))
    except AttributeError:
        return False
    return isinstance(module, nn.Linear) and tensor.axis == 0 and tensor.name.endswith(".weight")


def _module_name(checkpoint: Checkpoint, tensor: PlannedTensor) -> str:
    return parameter_name(checkpoint, tensor.name).removesuffix(".weight")
