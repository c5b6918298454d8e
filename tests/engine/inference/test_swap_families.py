"""The hot swap in a real engine for every model type that vLLM runs on this CPU: log-probabilities of the folded checkpoint.

The reference is transformers on the checkpoint that `bin/edit` writes. An engine a type: minutes, with -m slow.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.inference.replica import Replica
from engine.models.load import causal_model
from engine.models.variant import Variant
from tests.served_families import HIDDEN, SERVED_TYPES, save_served
from tests.swapped import tiny_replica

pytestmark = [pytest.mark.engine, pytest.mark.slow]
PROMPTS = [[1, 17, 23, 5, 9, 4], [1, 17, 40, 41, 42, 43, 44, 9, 4]]
RESPONSES = [[50, 51, 3, 60], [7, 8]]
EDIT = Edit(orthonormal_basis(torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(2))), 1.0)


@pytest.fixture(scope="module", params=SERVED_TYPES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replica, Variant, Path]]:
    folder = save_served(request.param, tmp_path_factory.mktemp("served") / "model")
    with tiny_replica(folder, dtype="float32") as ready:
        yield ready


def of_engine(replica: Replica, variant: Variant) -> list[float]:
    replica.swap(variant)
    return [value for value in replica.mean_logprobs(PROMPTS, RESPONSES) if value is not None]


def of_transformers(folder: Path) -> list[float]:
    model = causal_model(open_checkpoint(folder), dtype=torch.float32, attn_implementation="eager")
    means = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        means.append(sum(float(logprobs[place, token]) for place, token in zip(places, response, strict=True)) / len(response))
    return means


def test_a_variant_is_the_folded_checkpoint_and_the_base_comes_back(
    served: tuple[Replica, Variant, Path], tmp_path: Path
) -> None:
    replica, base, folder = served
    checkpoint = open_checkpoint(folder)
    write_edited(checkpoint, base.plan, EDIT, tmp_path / "out", record={}, card=lambda proofs: "card")
    before = of_engine(replica, base)
    edited = of_engine(replica, Variant("k2", base.base_hash, base.plan, EDIT))
    after = of_engine(replica, base)
    print(
        f"{checkpoint.model_type}: {max(abs(a - b) for a, b in zip(edited, of_transformers(tmp_path / 'out'), strict=True)):.1e}"
    )
    assert edited == pytest.approx(of_transformers(tmp_path / "out"), abs=2e-5)
    assert edited != pytest.approx(before, abs=2e-4)
    assert after == before
