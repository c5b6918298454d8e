"""The hot swap in a real engine for every pair of the checkpoint's type and the engine's: what was loaded is what is expected."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from editing.projection import Edit, orthonormal_basis
from engine.errors import SwapFailed
from engine.inference.hotswap import HotSwap
from engine.inference.replica import Replica
from engine.models.variant import Variant
from engine.vllm_compat import worker_here
from tests.swapped import tiny_replica
from tests.tiny import HIDDEN, save_tiny

pytestmark = pytest.mark.engine
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


# The pairs that machines meet; the others run with -m slow.
COMMON = [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32")]
PAIRS = [
    pytest.param(pair, id="-in-".join(pair), marks=[] if pair in COMMON else pytest.mark.slow)
    for pair in itertools.product(TYPES, TYPES)
]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replica, Variant, Path]]:
    """An engine of one type on a checkpoint of another, and its base."""
    stored, engine = request.param
    folder = save_tiny("llama served", tmp_path_factory.mktemp("model"), dtype=TYPES[stored])
    with tiny_replica(folder, dtype=engine) as ready:
        yield ready


def variant_of(base: Variant, k: int, *, keep_norms: bool = False) -> Variant:
    basis = orthonormal_basis(torch.randn(k, HIDDEN, generator=torch.Generator().manual_seed(k)))
    return Variant(f"k{k}", base.base_hash, base.plan, Edit(basis, 1.0, keep_norms))


def test_a_variant_is_taken_up(pair: tuple[Replica, Variant, Path]) -> None:
    replica, base, _ = pair
    replica.swap(base)
    error = replica.swap(variant_of(base, 2))
    print(f"largest probe error {error:.2e}")
    assert error < 0.01


def test_kept_norms_are_taken_up(pair: tuple[Replica, Variant, Path]) -> None:
    replica, base, _ = pair
    assert replica.swap(variant_of(base, 3, keep_norms=True)) < 0.01


def test_the_base_comes_back(pair: tuple[Replica, Variant, Path]) -> None:
    replica, base, _ = pair
    assert replica.swap(base) < 0.01


def test_old_weights_are_noticed(pair: tuple[Replica, Variant, Path]) -> None:
    """One direction of 48: the least that an edit can be here."""
    replica, base, _ = pair
    replica.swap(base)
    hotswap = swapper(replica)
    edits = hotswap.edits(variant_of(base, 1).edit.basis_HK, variant_of(base, 1).alphas)
    with pytest.raises(SwapFailed, match=r"the engine's output is off by|of the expected change arrived"):
        hotswap.probe(edits)


def swapper(replica: Replica) -> HotSwap:
    """The swapper inside the in-process worker."""
    return worker_here(replica.llm).hotswap
