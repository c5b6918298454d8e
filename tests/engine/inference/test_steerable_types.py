"""Interventions in a real engine for every model type that vLLM runs on this CPU: log-probabilities of transformers' hooks.

An engine a type: minutes, with -m slow.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from editing.checkpoint import open_checkpoint
from editing.plan import Scope
from engine.inference.steerable import SteerableReplica
from engine.models.load import causal_model
from engine.runtime.requests import Asked
from tests.ablated import stream_writers
from tests.served_families import HIDDEN, SERVED_TYPES, save_served
from tests.steered import stream_changed, tiny_steerable, unit_rows, without

pytestmark = [pytest.mark.engine, pytest.mark.slow]
PROMPTS = [[1, 17, 23, 5, 9, 4], [1, 17, 40, 41, 42, 43, 44, 9, 4]]
RESPONSES = [[50, 51, 3, 60], [7, 8]]
Q = unit_rows(HIDDEN, 2)


@pytest.fixture(scope="module", params=SERVED_TYPES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SteerableReplica, Path]]:
    folder = save_served(request.param, tmp_path_factory.mktemp("served") / "model")
    with tiny_steerable(folder, ("inputs", "writes")) as engine:
        engine.put("q", Q)
        yield engine, folder


def of_hooks(model: nn.Module) -> list[float]:
    """Mean log-probability of each response, by transformers."""
    means = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        with torch.no_grad():
            logprobs_TV = model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        means.append(sum(float(logprobs_TV[place, token]) for place, token in zip(places, response, strict=True)) / len(response))
    return means


def difference(found: Sequence[float | None], expected: Sequence[float]) -> float:
    return max(abs((one or 0.0) - other) for one, other in zip(found, expected, strict=True))


@contextmanager
def writes_changed(model: nn.Module) -> Iterator[None]:
    """While entered, every write leaves without the subspace; a projection's bias is left in."""

    def behind(module: nn.Module, args: object, output: object) -> object:
        first, *rest = output if isinstance(output, tuple) else (output,)
        bias = getattr(module, "bias", None)
        left = 0 if bias is None else bias.detach().double()
        changed = (without(Q, 1.0)(first.double() - left) + left).to(first.dtype)
        return (changed, *rest) if isinstance(output, tuple) else changed

    handles = [module.register_forward_hook(behind) for module in stream_writers(model, Scope())]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_streams_and_writes_are_those_of_hooks(served: tuple[SteerableReplica, Path]) -> None:
    engine, folder = served
    checkpoint = open_checkpoint(folder)
    model = causal_model(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    hooks = {
        None: nullcontext(),
        Asked("q", 1.0): stream_changed(model, range(engine.num_blocks), without(Q, 1.0)),
        Asked("q", 1.0, site="writes"): writes_changed(model),
    }
    untouched = of_hooks(model)
    for asked, hooked in hooks.items():
        with hooked:
            expected = of_hooks(model)
        off, effect = difference(engine.mean_logprobs(PROMPTS, RESPONSES, [asked] * 2), expected), difference(untouched, expected)
        print(f"{checkpoint.model_type}: {asked.site if asked else 'base'} {off:.1e}, effect {effect:.1e}")
        assert off < 2e-5
        assert asked is None or effect > 2e-4
