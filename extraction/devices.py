"""Devices of a transformers model, whether on one device or split over several by accelerate."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def input_device(model: nn.Module) -> torch.device:
    """The device that token ids go to.

    It is the embedding's, or where accelerate brings an embedding whose weights it keeps elsewhere.
    """
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    moved_to = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    return torch.device(next(embedding.parameters()).device if moved_to is None else moved_to)


def devices_of(model: nn.Module) -> set[torch.device]:
    """Every device that holds weights; `meta` for weights that accelerate brings in when they are needed."""
    return {parameter.device for parameter in model.parameters()}


def follower(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that gives `tensor` on the device and in the dtype of another, copied once for each."""
    copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def beside(other: Tensor) -> Tensor:
        key = (other.device, other.dtype)
        if key not in copies:
            copies[key] = tensor.to(*key)
        return copies[key]

    return beside
