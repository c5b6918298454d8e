"""An engine whose requests carry interventions, on a tiny checkpoint; and the same by hooks written here, with transformers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.configs.load import validate
from engine.configs.schema import RunConfig, SamplingConfig
from engine.environment import set_environment
from engine.inference.arguments import engine_arguments
from engine.inference.steerable import SteerableReplica, steerable_arguments
from engine.runtime.requests import Asked
from extraction.hooks import decoder_blocks
from tests.swapped import SMALL

Places = Callable[[int], bool]  # of a token's place in its sequence


@dataclass(frozen=True)
class Said:
    """A greedy response and its mean log-probability (nats a token)."""

    token_ids: list[int]
    mean_logprob: float


@contextmanager
def tiny_steerable(folder: Path, sites: Sequence[str], **vllm: Any) -> Iterator[SteerableReplica]:
    """A float32 engine on the checkpoint in `folder`; vllm: keys of a configuration's [vllm] table."""
    set_environment()
    table = {"variant": "tiny", "model": {"path": str(folder), "dtype": "float32"}, "directions": {"layers": [1]}}
    config: RunConfig = validate({**table, "vllm": {**SMALL, **vllm}}, "a test")
    engine = SteerableReplica(steerable_arguments(engine_arguments(config, folder, has_gpu=False), sites=sites))
    try:
        yield engine
    finally:
        engine.close()


def unit_rows(width: int, k: int, seed: int = 0) -> Tensor:
    """Orthonormal rows (k, H), float32."""
    return torch.linalg.qr(torch.randn(width, k, generator=torch.Generator().manual_seed(seed)))[0].T.contiguous()


def of_engine(engine: SteerableReplica, prompts: Sequence[list[int]], asked: Sequence[Asked | None], most: int = 6) -> list[Said]:
    """The engine's greedy responses, in the order of the prompts."""
    sampling = SamplingConfig(temperature=0, max_tokens=most)
    found = {one.index: one for one in engine.generate(prompts, sampling, asked, logprobs=True)}
    return [Said(found[place].token_ids, float(found[place].mean_logprob or 0)) for place in range(len(prompts))]


def of_transformers(model: nn.Module, prompts: Sequence[list[int]], most: int = 6) -> list[Said]:
    """transformers' greedy responses without a cache, under whatever hooks the model has."""
    return [_greedy(model, prompt, most) for prompt in prompts]


def _greedy(model: nn.Module, prompt: list[int], most: int) -> Said:
    token_ids, logprobs = list(prompt), []
    while len(logprobs) < most:
        with torch.no_grad():
            logprobs_V = model(torch.tensor([token_ids])).logits[0, -1].log_softmax(-1)
        logprobs.append(float(logprobs_V.max()))
        token_ids.append(int(logprobs_V.argmax()))
        if token_ids[-1] == model.config.eos_token_id:
            break
    return Said(token_ids[len(prompt) :], sum(logprobs) / len(logprobs))


@contextmanager
def stream_changed(
    model: nn.Module, blocks: Sequence[int], change: Callable[[Tensor], Tensor], places: Places = lambda place: True
) -> Iterator[None]:
    """While entered, what enters each of these blocks is changed at the tokens whose place is named."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        stream = args[0] if args else kwargs["hidden_states"]
        named_T1 = torch.tensor([places(place) for place in range(stream.shape[1])])[:, None]
        changed = torch.where(named_T1, change(stream.double()).to(stream.dtype), stream)
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    every = decoder_blocks(model)
    handles = [every[number].register_forward_pre_hook(before, with_kwargs=True) for number in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def without(rows_KH: Tensor, alpha: float) -> Callable[[Tensor], Tensor]:
    """r - alpha Q^T Q r in float64."""
    q_KH = rows_KH.double()
    return lambda stream: stream - alpha * (stream @ q_KH.T) @ q_KH


def with_added(rows_KH: Tensor, add: float) -> Callable[[Tensor], Tensor]:
    """r + c times the sum of the rows, in float64."""
    return lambda stream: stream + add * rows_KH.double().sum(0)
