"""Interventions on a running transformers model: a vector added to the residual stream, or a subspace taken out of writes."""
# H = hidden size, K = directions

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from extraction.hooks import decoder_blocks


@contextmanager
def addition(model: nn.Module, layer: int, vector_H: Tensor) -> Iterator[None]:
    """Add a vector to the stream that enters block `layer` (L: that leaves the last), at every token, while active."""
    blocks = decoder_blocks(model)
    parameter = next(model.parameters())
    added_H = vector_H.to(parameter.device, parameter.dtype)

    def before(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if args:
            return (args[0] + added_H, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] + added_H}

    def after(block: nn.Module, args: Any, output: Any) -> Any:
        return (output[0] + added_H, *output[1:]) if isinstance(output, tuple) else output + added_H

    if layer == len(blocks):
        handle = blocks[-1].register_forward_hook(after)
    else:
        handle = blocks[layer].register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def ablation(model: nn.Module, writers: Sequence[str], basis_HK: Tensor, alpha: float = 1.0) -> Iterator[None]:
    """y - alpha Q Q^T y on the output of each named module, for an orthonormal basis Q, while active."""
    parameter = next(model.parameters())
    directions_KH = basis_HK.T.contiguous().to(parameter.device, parameter.dtype)

    def after(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        removed = output
        for direction_H in directions_KH:  # a matmul in bf16 falls on a slow path of the CPU
            removed = removed - (output * direction_H).sum(-1, keepdim=True) * (alpha * direction_H)
        return removed

    handles = [model.get_submodule(name).register_forward_hook(after) for name in writers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
