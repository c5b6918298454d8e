"""Routed experts in the engine: fused or one by one in the checkpoint, one tensor of all of a rank's experts in vLLM.

A probe goes through a whole expert by the kernel that generation uses. What its down projection gets is computed here from the
checkpoint's gate and up projections, so that a stale expert, or one in another's place, shows.
"""
# E = this worker's experts, H = hidden size, I = this worker's share of an expert's width, P = probe vectors

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from editing.checkpoint import Checkpoint
from editing.plan import PlannedTensor
from engine.errors import EngineError
from engine.inference.probing import COPIED
from engine.inference.sites import Site, columns, product, random_vectors, turned
from engine.vllm_compat.layers import (
    USE_EDIT,
    columns_of_experts,
    exchange_expert,
    expert_biases,
    expert_output,
    held_experts,
)

EXPERTS = re.compile(r"(?P<block>.+\.experts)(\.(?P<number>\d+))?\.(?P<down>down_proj|w2)(?P<bias>_bias)?(\.weight)?")
INPUTS = {"down_proj": ("gate_proj", "up_proj"), "w2": ("w1", "w3")}
NUM_PROBES = 4  # of each expert: a model can have thousands
GPT_OSS_SLOPE, GPT_OSS_LIMIT = 1.702, 7.0  # of transformers' GptOssExperts, fixed there


@dataclass(frozen=True)
class ExpertsName:
    """What a tensor's name says of experts: their block, the one expert's number or None for all, and whether it is a bias."""

    block: str
    number: int | None
    down: str
    is_bias: bool


def experts_name(tensor: str) -> ExpertsName | None:
    """The parts of a routed expert's tensor name; None for another tensor's."""
    match = EXPERTS.fullmatch(tensor)
    if match is None:
        return None
    number = match["number"]
    return ExpertsName(match["block"], None if number is None else int(number), match["down"], match["bias"] is not None)


@dataclass(frozen=True)
class ExpertLayer:
    """vLLM's layer of a block's experts with this rank's share: the checkpoint's numbers of its experts, and columns."""

    module: Any
    numbers: Sequence[int]
    columns: slice

    def held_of(self, name: ExpertsName) -> list[int]:
        """The numbers of a tensor's experts that this rank holds."""
        return [number for number in self.numbers if name.number in (None, number)]


def expert_layer(module: Any, checkpoint: Checkpoint, name: ExpertsName) -> ExpertLayer:
    """A rank's share of the layer that `module` is."""
    total, width = _sizes(checkpoint, name)
    return ExpertLayer(module, held_experts(module, total), columns_of_experts(module, width))


class ExpertsSite(Site):
    """Down projections of a rank's experts: one tensor of them all, or one expert's own. Each is judged by itself."""

    def __init__(
        self, tensor: PlannedTensor, layer: ExpertLayer, checkpoint: Checkpoint, device: torch.device, *, repacks: bool
    ) -> None:
        name = _name_of(tensor)
        self.numbers, self.layer, self.repacks = layer.held_of(name), layer, repacks
        whole = checkpoint.read(tensor.name)
        base = columns(whole if name.number is not None else _picked(whole, self.numbers), tensor, layer.columns)
        super().__init__(tensor, layer.module, base.to(device), layer.module.params_dtype)
        self.places = [tensor.name if name.number is not None else f"{tensor.name}[{number}]" for number in self.numbers]
        self.probe_PH = random_vectors(name.block, NUM_PROBES, checkpoint.hidden_size, self.dtype).to(device)
        self.inputs_PI = [self._inner(checkpoint, name, number) for number in self.numbers]
        self.base_output = self.expected(self.base)

    def load(self, weight: Tensor) -> None:
        for number, weight_HI in zip(self.numbers, self._matrices(weight), strict=True):
            place = self.layer.numbers.index(number)
            exchange_expert(self.module, place, weight_HI.to(self.dtype), repacks=self.repacks)

    def expected(self, weight: Tensor) -> list[Tensor]:
        pairs = zip(self.inputs_PI, self._matrices(weight), strict=True)
        return [product(input_PI, weight_HI) for input_PI, weight_HI in pairs]

    def observed(self) -> list[Tensor]:
        with torch.inference_mode():
            return [expert_output(self.module, self.probe_PH, number).to(torch.float64) for number in self.numbers]

    def offsets(self) -> list[Tensor | float]:
        biases_EH = expert_biases(self.module)
        if biases_EH is None:
            return super().offsets()
        return [biases_EH[self.layer.numbers.index(number)].to(torch.float64) for number in self.numbers]

    def _matrices(self, weight: Tensor) -> list[Tensor]:
        turned_HI = turned(weight, self.tensor)
        return list(turned_HI) if turned_HI.dim() == 3 else [turned_HI]

    def _inner(self, checkpoint: Checkpoint, name: ExpertsName, number: int) -> Tensor:
        """What an expert's down projection gets of the probe, in the engine's type: this rank's columns, (P, I)."""
        gate_PI, up_PI = _gate_and_up(checkpoint, self.tensor, name, number, self.layer.columns, self.probe_PH)
        return _activated(checkpoint.config, gate_PI, up_PI).to(self.dtype)


class ExpertBiasSite(Site):
    """Output biases of a rank's experts, which the kernel takes from the parameter at each call: compared as they are held."""

    def __init__(self, tensor: PlannedTensor, layer: ExpertLayer, checkpoint: Checkpoint, device: torch.device) -> None:
        held_EH = expert_biases(layer.module)
        if held_EH is None:
            raise EngineError(f"vLLM holds no {tensor.name}. {USE_EDIT}")
        base = _picked(checkpoint.read(tensor.name), layer.numbers)
        super().__init__(tensor, layer.module, base.to(device), held_EH.dtype)
        self.base_output = self.expected(self.base)

    @property
    def tolerances(self) -> tuple[float, float]:
        return COPIED, super().tolerances[1]

    def load(self, weight: Tensor) -> None:
        expert_biases(self.module).copy_(weight)

    def expected(self, weight: Tensor) -> list[Tensor]:
        return [weight.to(self.dtype).to(torch.float64)]

    def observed(self) -> list[Tensor]:
        return [expert_biases(self.module).to(torch.float64)]


def _name_of(tensor: PlannedTensor) -> ExpertsName:
    name = experts_name(tensor.name)
    assert name is not None
    return name


def _sizes(checkpoint: Checkpoint, name: ExpertsName) -> tuple[int, int]:
    """The number of a block's experts and their width, of the checkpoint's tensors."""
    fused = checkpoint.tensors.get(f"{name.block}.{name.down}")
    if fused is not None:
        total, *matrix = fused.shape
    else:
        first = re.compile(re.escape(name.block) + r"\.\d+\." + name.down + r"\.weight")
        entries = [entry for tensor, entry in checkpoint.tensors.items() if first.fullmatch(tensor)]
        total, matrix = len(entries), list(entries[0].shape)
    return total, sum(matrix) - checkpoint.hidden_size


def _picked(weight: Tensor, numbers: Sequence[int]) -> Tensor:
    """Some experts of a fused tensor; the file's own pages where they are all of them."""
    return weight if list(numbers) == list(range(len(weight))) else weight[list(numbers)]


def _gate_and_up(
    checkpoint: Checkpoint, tensor: PlannedTensor, name: ExpertsName, number: int, part: slice, probe_PH: Tensor
) -> tuple[Tensor, Tensor]:
    """Both input projections' outputs for the probe, this rank's columns, as the engine's type rounds the weights."""
    if name.number is not None:
        gate, up = (checkpoint.read(f"{name.block}.{number}.{inner}.weight")[part] for inner in INPUTS[name.down])
        return _through(gate, probe_PH), _through(up, probe_PH)
    fused = checkpoint.read(f"{name.block}.gate_up_proj")[number]
    if tensor.axis == 1:  # (2 I, H): gates first
        gate, up = fused.chunk(2)
        return _through(gate[part], probe_PH), _through(up[part], probe_PH)
    if (inner_biases := f"{name.block}.gate_up_proj_bias") not in checkpoint.tensors:
        raise EngineError(f"{tensor.name} is turned round and has no biases, unlike gpt-oss's; it is not probed. {USE_EDIT}")
    both = fused.T.unflatten(0, (-1, 2))[part]  # gpt-oss: (H, 2 I), gate and up in turn
    biases = checkpoint.read(inner_biases)[number].view(-1, 2)[part]
    return tuple(_through(both[:, one], probe_PH) + _rounded(biases[:, one], probe_PH) for one in (0, 1))  # type: ignore[return-value]


def _through(weight_IH: Tensor, probe_PH: Tensor) -> Tensor:
    return probe_PH.float() @ _rounded(weight_IH, probe_PH).T


def _rounded(weight: Tensor, probe_PH: Tensor) -> Tensor:
    """A tensor of the checkpoint as the engine holds it: on its device, rounded to its type; float32."""
    return weight.to(probe_PH.device).to(probe_PH.dtype).float()


def _activated(config: Mapping[str, Any], gate_PI: Tensor, up_PI: Tensor) -> Tensor:
    """The gated activation, by the checkpoint's configuration."""
    if config.get("model_type") == "gpt_oss":
        gate_PI, up_PI = gate_PI.clamp(max=GPT_OSS_LIMIT), up_PI.clamp(-GPT_OSS_LIMIT, GPT_OSS_LIMIT)
        return (up_PI + 1) * gate_PI * torch.sigmoid(GPT_OSS_SLOPE * gate_PI)
    if config.get("hidden_act") != "silu":
        raise EngineError(f"Experts with {config.get('hidden_act')!r} as hidden_act are not probed. {USE_EDIT}")
    return silu(gate_PI) * up_PI
