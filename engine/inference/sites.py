"""Where a swap exchanges a tensor in the engine, and how it is probed there: the interface, linear layers and biases.

A site is one tensor of the checkpoint in one layer of this worker. Its output is a list, one tensor a place that is judged by
itself: an expert, or an embedding and the head that shares it. `engine.inference.opening` makes them.
"""
# H = hidden size, I = this worker's share of the input size, P = probe vectors, N = output rows of a place

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from editing.plan import PlannedTensor
from editing.projection import Removal, project_out
from engine.inference.probing import COPIED, PROBE_TOLERANCE, edited_output
from engine.vllm_compat.layers import columns_of, exchange_bias, exchange_weight, layer_output

NUM_PROBES = 8


class Site(ABC):
    """A tensor's place in the engine: `base` is this worker's part of W0 in the checkpoint's shape and type, on its device.

    places: names for messages, one for each tensor of an output. dtype: the engine's.
    """

    def __init__(self, tensor: PlannedTensor, module: Any, base: Tensor, dtype: torch.dtype) -> None:
        self.tensor, self.module, self.base, self.dtype = tensor, module, base, dtype
        self.places = [tensor.name]
        self.base_output: list[Tensor] = []  # of the probe, from the checkpoint; each (N, H) float64

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def tolerances(self) -> tuple[float, float]:
        """Of the engine's output, and of the rounded weights against the edit that nobody rounded."""
        of_engine = PROBE_TOLERANCE[self.dtype]
        return of_engine, max(of_engine, PROBE_TOLERANCE[self.base.dtype])

    def weight(self, edit: Removal | None) -> Tensor:
        """This worker's part of the variant's tensor, rounded to the checkpoint's type as the writer rounds it."""
        return self.base if edit is None else project_out(self.base, edit, self.tensor.axis)

    def ideal(self, edit: Removal | None) -> list[Tensor | None]:
        """The probe's output for an edit that nobody rounded, from the base's; None where it is not linear."""
        return [edited_output(output_NH, edit) for output_NH in self.base_output]

    def offsets(self) -> list[Tensor | float]:
        """What the layer adds to its output beside this tensor's share, as the engine holds it now."""
        return [0.0] * len(self.places)

    @abstractmethod
    def load(self, weight: Tensor) -> None:
        """Put this worker's part of a tensor into the engine."""

    @abstractmethod
    def expected(self, weight: Tensor) -> list[Tensor]:
        """The probe's output with these weights in the engine's type; each (N, H) float64."""

    @abstractmethod
    def observed(self) -> list[Tensor]:
        """The engine's output for the probe; each (N, H) float64."""


class LinearSite(Site):
    """An attention or MLP output projection: each rank holds columns of the (H, I) matrix, or of a replicated layer all."""

    def __init__(self, tensor: PlannedTensor, module: Any, whole: Tensor, device: torch.device, *, repacks: bool) -> None:
        base = columns(whole, tensor, columns_of(module))
        super().__init__(tensor, module, base.to(device), module.params_dtype)
        self.repacks = repacks
        self.probe_PI = random_vectors(tensor.name, NUM_PROBES, turned(base, tensor).shape[1], self.dtype)
        self.base_output = [product(self.probe_PI, turned(base, tensor)).to(device)]
        self.probe_PI = self.probe_PI.to(device)

    def load(self, weight: Tensor) -> None:
        exchange_weight(self.module, turned(weight, self.tensor).to(self.dtype), repacks=self.repacks)

    def expected(self, weight: Tensor) -> list[Tensor]:
        return [product(self.probe_PI, turned(weight, self.tensor))]

    def observed(self) -> list[Tensor]:
        with torch.inference_mode():
            return [layer_output(self.module, self.probe_PI).to(torch.float64)]


class BiasSite(Site):
    """The bias of such a layer, which every rank holds: read back as the layer's output for zeros."""

    def __init__(self, tensor: PlannedTensor, module: Any, whole: Tensor, device: torch.device) -> None:
        super().__init__(tensor, module, whole.to(device), module.params_dtype)
        self.zeros_1I = torch.zeros(1, module.input_size_per_partition, dtype=self.dtype, device=device)
        self.base_output = self.expected(self.base)

    @property
    def tolerances(self) -> tuple[float, float]:
        return COPIED, super().tolerances[1]

    def load(self, weight: Tensor) -> None:
        exchange_bias(self.module, weight.to(self.dtype))

    def expected(self, weight: Tensor) -> list[Tensor]:
        return [weight.to(self.dtype).to(torch.float64)[None]]

    def observed(self) -> list[Tensor]:
        with torch.inference_mode():
            return [layer_output(self.module, self.zeros_1I, with_bias=True).to(torch.float64)]


def turned(weight: Tensor, tensor: PlannedTensor) -> Tensor:
    """A matrix as (H, I), as vLLM holds it: Conv1D and gpt-oss store (input, hidden)."""
    return weight if tensor.axis != -1 else weight.mT


def columns(weight: Tensor, tensor: PlannedTensor, part: slice) -> Tensor:
    """Columns of the (H, I) matrix, or matrices, in the checkpoint's own shape."""
    return weight[..., part, :] if tensor.axis == -1 else weight[..., part]


def random_vectors(name: str, number: int, width: int, dtype: torch.dtype) -> Tensor:
    """Probe vectors (number, width): the same for a name everywhere."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return torch.randn(number, width, generator=generator).to(dtype)


def product(input_PI: Tensor, weight_HI: Tensor) -> Tensor:
    """W x for probe vectors, with the weights in the vectors' type and float32 sums: (P, H) float64."""
    return (input_PI.float() @ weight_HI.to(input_PI.dtype).float().T).to(torch.float64)
