"""A transformers model whose projections are exchanged for a variant's, with the bits that the checkpoint writer gives."""

from typing import Any

from torch import Tensor

from editing.apply import edit_of
from editing.checkpoint import Checkpoint
from editing.plan import EditPlan
from editing.projection import Edit, project_out
from engine.errors import EngineError


class FoldedModel:
    """Folds edits into `model`, which was loaded from `checkpoint`; W0 is read from there on the CPU, kept on a GPU."""

    def __init__(self, model: Any, checkpoint: Checkpoint, plan: EditPlan) -> None:
        self.model = model
        self.checkpoint = checkpoint
        self.plan = plan
        self._parameters = {tensor.name: _parameter(model, tensor.name) for tensor in plan.edited}
        self._kept = {name: value.data.clone() for name, value in self._parameters.items() if value.device.type != "cpu"}

    def fold(self, edit: Edit | None) -> None:
        """Take up an edit; None is the base."""
        for tensor in self.plan.edited:
            weight = self._kept[tensor.name] if tensor.name in self._kept else self.checkpoint.read(tensor.name)
            if edit is not None:
                weight = project_out(weight, edit_of(self.checkpoint, tensor, edit), tensor.axis)
            self.set(tensor.name, weight)

    def set(self, name: str, weight: Tensor) -> None:
        """Exchange one tensor."""
        self._parameters[name].data.copy_(weight)


def _parameter(model: Any, name: str) -> Any:
    try:
        return model.get_parameter(name)
    except AttributeError:
        raise EngineError(
            f"transformers keeps {name} of this model under another name, so the screen cannot fold an edit into it. "
            "Search without it: --exhaustive."
        ) from None
