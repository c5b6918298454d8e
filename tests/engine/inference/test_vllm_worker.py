"""What vLLM's workers answer, on a real layer of a tiny checkpoint without an engine: plain values, and never an exception."""

from pathlib import Path
from typing import Any

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from engine.errors import EngineError, SwapFailed
from engine.inference.answers import arguments_of, check_scope, checked_answers, opening_of
from engine.inference.vllm_worker import HotSwapWorker
from engine.models.variant import Variant
from tests.tiny import HIDDEN


class Loaded:
    """A hot swap that takes what it is given, and fails where it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.taken: Any = None

    def edits(self, basis_HK: torch.Tensor, alphas: dict[str, float], *, keep_norms: bool) -> dict[str, Edit]:
        return {name: Edit(basis_HK, alpha, keep_norms) for name, alpha in alphas.items()}

    def swap(self, edits: dict[str, Edit]) -> float:
        self.taken = edits
        if self.error is not None:
            raise self.error
        return 0.25


def worker(error: Exception | None = None) -> HotSwapWorker:
    made = HotSwapWorker()
    made.hotswap = Loaded(error)  # type: ignore[assignment]
    return made


@pytest.fixture
def variant(llama_dir: Path) -> Variant:
    checkpoint = open_checkpoint(llama_dir)
    basis_HK = orthonormal_basis(torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(0)))
    return Variant("k2", checkpoint.hash, plan_edit(checkpoint), Edit(basis_HK, 0.5))


def test_a_swap_answers_with_the_variant_and_the_error(variant: Variant) -> None:
    assert worker().hotswap_apply(*arguments_of(variant)) == {"variant_hash": variant.hash, "probe_error": 0.25}


def test_the_basis_arrives_bit_for_bit(variant: Variant) -> None:
    made = worker()
    made.hotswap_apply(*arguments_of(variant))
    assert variant.edit is not None
    assert all(torch.equal(edit.basis_HK, variant.edit.basis_HK) for edit in made.hotswap.taken.values())  # type: ignore[attr-defined]


def test_every_edited_tensor_arrives_with_its_alpha(variant: Variant) -> None:
    made = worker()
    made.hotswap_apply(*arguments_of(variant))
    assert {name: edit.alpha for name, edit in made.hotswap.taken.items()} == variant.alphas  # type: ignore[attr-defined]


def test_the_base_is_no_edit(variant: Variant) -> None:
    made = worker()
    made.hotswap_apply(*arguments_of(Variant("base", variant.base_hash, variant.plan, None)))
    assert made.hotswap.taken == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [SwapFailed("layer 3 is off"), EngineError("no such tensor"), RuntimeError("out of memory")])
def test_an_error_is_an_answer(variant: Variant, error: Exception) -> None:
    answer = worker(error).hotswap_apply(*arguments_of(variant))
    assert answer == {"variant_hash": variant.hash, "error": type(error).__name__, "message": str(error)}


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (SwapFailed("layer 3 is off"), SwapFailed, "^layer 3 is off$"),
        (EngineError("no such tensor"), EngineError, "^no such tensor$"),
        (RuntimeError("out of memory"), EngineError, "^RuntimeError: out of memory$"),
    ],
)
def test_an_answer_with_an_error_is_raised_as_it_was(
    variant: Variant, error: Exception, kind: type[Exception], message: str
) -> None:
    answer = worker(error).hotswap_apply(*arguments_of(variant))
    with pytest.raises(kind, match=message):
        checked_answers([answer], variant.hash)


def test_one_rank_of_two_that_fails_is_named(variant: Variant) -> None:
    good = worker().hotswap_apply(*arguments_of(variant))
    bad = worker(EngineError("no such tensor")).hotswap_apply(*arguments_of(variant))
    with pytest.raises(EngineError, match=r"^rank 1: no such tensor$"):
        checked_answers([good, bad], variant.hash)


def test_an_answer_to_another_call_is_not_taken(variant: Variant) -> None:
    with pytest.raises(SwapFailed, match="Rank 0 answered for variant other"):
        checked_answers([{"variant_hash": "other", "probe_error": 0.0}], variant.hash)


def test_an_engine_is_opened_for_what_any_variant_edits() -> None:
    assert opening_of("base", Scope(), Scope(embeddings=True), Scope(biases=True)) == ("base", True, True)


def test_a_variant_within_the_scope_of_its_engine_passes() -> None:
    check_scope(Scope(layers=frozenset({1})), Scope(embeddings=True))


@pytest.mark.parametrize("part", ["embeddings", "biases"])
def test_a_scope_beyond_the_one_that_an_engine_was_opened_for_is_refused(part: str) -> None:
    with pytest.raises(EngineError, match=rf"opened without edit\.{part}"):
        check_scope(Scope(**{part: True}), Scope())


def test_a_head_untied_is_refused() -> None:
    scope = Scope(embeddings=True, untie=True)
    with pytest.raises(EngineError, match=r"edit\.untie is not taken up by a running engine"):
        check_scope(scope, scope)
