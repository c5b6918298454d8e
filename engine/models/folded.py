"""A transformers model whose projections are exchanged for a variant's, with the bits that the checkpoint writer gives."""

from typing import Any

import torch
from torch import Tensor

from editing.apply import edit_of
from editing.checkpoint import Checkpoint
from editing.plan import EditPlan
from editing.projection import Edit, project_out
from engine.errors import EngineError
from engine.models.load import parameter_name

SHARE_FOR_W0 = 0.5  # of a GPU's free memory: the rest is for activations and logits


class FoldedModel:
    """Folds edits into `model`, which was loaded from `checkpoint`.

    W0 is kept on a GPU that has room for it beside the model, else read from the checkpoint each time. Raises EngineError for
    a model whose projections are not in memory.
    """

    def __init__(self, model: Any, checkpoint: Checkpoint, plan: EditPlan) -> None:
        self.model = model
        self.checkpoint = checkpoint
        self.plan = plan
        self._parameters = {tensor.name: _parameter(model, checkpoint, tensor.name) for tensor in plan.edited}
        self._kept = {name: value.data.clone() for name, value in self._parameters.items() if name in _kept(self._parameters)}
        self._folded: list[Edit | None] = [None]

    def fold(self, edit: Edit | None) -> None:
        """Take up an edit; None is the base. The one that is folded in stays."""
        if any(edit is folded for folded in self._folded):
            return
        for tensor in self.plan.edited:
            weight = self._kept[tensor.name] if tensor.name in self._kept else self.checkpoint.read(tensor.name)
            weight = weight.to(self._parameters[tensor.name].device)
            if edit is not None:
                weight = project_out(weight, edit_of(self.checkpoint, tensor, edit), tensor.axis)
            self.set(tensor.name, weight)
        self._folded = [edit]

    def set(self, name: str, weight: Tensor) -> None:
        """Exchange one tensor."""
        self._folded = []
        self._parameters[name].data.copy_(weight)


def _kept(parameters: dict[str, Any]) -> set[str]:
    """Tensors whose W0 stays on their GPU: all of a GPU's, where half of its free memory holds them."""
    kept: set[str] = set()
    for device in {value.device for value in parameters.values() if value.device.type == "cuda"}:
        here = {name: value for name, value in parameters.items() if value.device == device}
        size = sum(value.numel() * value.element_size() for value in here.values())
        if size <= SHARE_FOR_W0 * torch.cuda.mem_get_info(device)[0]:
            kept |= set(here)
    return kept


def _parameter(model: Any, checkpoint: Checkpoint, name: str) -> Any:
    try:
        parameter = model.get_parameter(parameter_name(checkpoint, name))
    except AttributeError:
        raise EngineError(
            f"transformers keeps {name} of this model under another name, so the screen cannot fold an edit into it. "
            "Search without it: --exhaustive."
        ) from None
    if parameter.device.type == "meta":
        raise EngineError(
            f"{name} does not fit on this machine's GPUs beside the rest, so no edit can be folded into it there. Use more "
            "GPUs, or search without the screen: --exhaustive."
        )
    return parameter
