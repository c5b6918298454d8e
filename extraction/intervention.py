"""Interventions on a running transformers model: a vector added to the residual stream, or a subspace taken out of it.

A subspace is taken out where the stream enters the blocks, or where it is written. Context managers: nothing stays behind.

    with stream_ablation(model, basis_HK, alpha=1.0):
        responses = greedy(model, prompts, max_tokens=64)
"""
# H = hidden size, K = directions

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from extraction.devices import follower
from extraction.errors import ExtractionError
from extraction.hooks import decoder_blocks, decoder_body

Change = Callable[[Tensor], Tensor]


@contextmanager
def standing(handles: Sequence[Any]) -> Iterator[None]:
    """Let hooks stand while it is entered."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def addition(model: nn.Module, layer: int, vector_H: Tensor) -> Iterator[None]:
    """Add a vector to the stream that enters block `layer`, at every token, while active. Layer L is what leaves the last."""
    blocks = decoder_blocks(model)
    added_H = follower(vector_H)

    def change(hidden_states: Tensor) -> Tensor:
        return hidden_states + added_H(hidden_states)

    handle = on_output(blocks[-1], change) if layer == len(blocks) else on_input(blocks[layer], change)
    with standing([handle]):
        yield


@contextmanager
def ablation(
    model: nn.Module, writers: Sequence[str], basis_HK: Tensor, alpha: float = 1.0, *, biases: bool = False
) -> Iterator[None]:
    """Replace the output y of each named module by y - alpha Q Q^T y, for an orthonormal basis Q (H, K), while active.

    writers: module names. Where a norm follows a projection, name the norm: its output is what is written.
    biases: False leaves a projection's output bias as it is, as an edit of the weights leaves it.
    """
    change = _projection(model, basis_HK, alpha)
    modules = [model.get_submodule(name) for name in writers]
    handles = [on_output(module, change if biases else beside_bias(module, change)) for module in modules]
    with standing(handles):
        yield


@contextmanager
def stream_ablation(
    model: nn.Module, basis_HK: Tensor, alpha: float = 1.0, layers: Sequence[int] | None = None
) -> Iterator[None]:
    """Replace the stream r that enters each block by r - alpha Q Q^T r while active, as the study does at run time.

    layers: the blocks; None for all.
    For one direction v and alpha: r - alpha <r, v> v.
    """
    blocks, change = decoder_blocks(model), _projection(model, basis_HK, alpha)
    chosen = range(len(blocks)) if layers is None else layers
    handles = [on_input(blocks[layer], change) for layer in chosen]
    with standing(handles):
        yield


def _projection(model: nn.Module, basis_HK: Tensor, alpha: float) -> Change:
    width = int(decoder_body(model).config.hidden_size)
    if basis_HK.shape[0] != width:
        raise ExtractionError(f"The directions have width {basis_HK.shape[0]}; this model's hidden size is {width}.")
    directions_KH = follower(basis_HK.T.contiguous())

    def change(hidden_states: Tensor) -> Tensor:
        removed = hidden_states
        for direction_H in directions_KH(hidden_states):  # a matmul in bf16 falls on a slow path of the CPU
            removed = removed - (hidden_states * direction_H).sum(-1, keepdim=True) * (alpha * direction_H)
        return removed

    return change


def beside_bias(module: nn.Module, change: Change) -> Change:
    """The change of a projection's output without its bias, which stays as it is."""
    bias_H = getattr(module, "bias", None)
    return change if bias_H is None else lambda output: change(output - bias_H) + bias_H


def on_input(block: nn.Module, change: Change) -> Any:
    """Change the stream that enters a block; returns the hook's handle."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    return block.register_forward_pre_hook(before, with_kwargs=True)


def on_output(module: nn.Module, change: Change) -> Any:
    """Change what a module puts out; returns the hook's handle."""

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return module.register_forward_hook(after)
