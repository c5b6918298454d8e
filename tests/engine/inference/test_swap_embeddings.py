"""The hot swap of embeddings and biases in a real engine, with a head that is the embedding and with one of its own.

transformers on the checkpoint that the writer made is the reference.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.configs.schema import SamplingConfig
from engine.errors import EngineError, SwapFailed
from engine.inference.embeddings import EmbeddingSite, HeadSite
from engine.inference.hotswap import HotSwap
from engine.inference.replica import Replica
from engine.inference.sites import BiasSite
from engine.models.variant import Variant
from engine.vllm_compat import worker_here
from tests.greedy import by_transformers
from tests.swapped import tiny_replica
from tests.tiny import save_tiny

pytestmark = pytest.mark.engine
PROMPTS = [[1, 5 + index, 9, 17, 3 + index] for index in range(6)]
GREEDY = SamplingConfig(max_tokens=6)
WIDE = Scope(embeddings=True, biases=True)
SHAPES = [
    pytest.param("llama served tied", id="tied"),
    pytest.param("llama served", id="untied", marks=pytest.mark.slow),
    pytest.param("gpt2 served", id="biases, positions and Conv1D", marks=pytest.mark.slow),
    pytest.param("gemma2 served", id="a model that is its own head", marks=pytest.mark.slow),
]


@dataclass(frozen=True)
class Swapped:
    """An engine, its base, a variant of the whole scope, and the checkpoint that the writer makes of it."""

    replica: Replica
    base: Variant
    variant: Variant
    folded: Path

    @property
    def hotswap(self) -> HotSwap:
        return worker_here(self.replica.llm).hotswap

    def said(self) -> tuple[list[list[int]], list[float | None]]:
        found = sorted(self.replica.generate(PROMPTS, GREEDY, logprobs=True), key=lambda one: one.index)
        return [one.token_ids for one in found], [one.mean_logprob for one in found]


@pytest.fixture(scope="module", params=SHAPES)
def swapped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swapped]:
    folder = save_tiny(request.param, tmp_path_factory.mktemp("model"), dtype=torch.float32)
    with tiny_replica(folder, WIDE) as (replica, base, _):
        checkpoint = open_checkpoint(folder)
        basis_HK = orthonormal_basis(torch.randn(2, checkpoint.hidden_size, generator=torch.Generator().manual_seed(5)))
        variant = Variant("k2", base.base_hash, base.plan, Edit(basis_HK, 1.0))
        folded = tmp_path_factory.mktemp("made") / "folded"
        write_edited(checkpoint, base.plan, variant.edit, folded, record={}, card=lambda proofs: "")
        yield Swapped(replica, base, variant, folded)


def test_every_tensor_of_the_scope_has_a_site(swapped: Swapped) -> None:
    assert {site.name for site in swapped.hotswap.sites} == set(swapped.variant.alphas)


def test_a_tied_head_alone_has_a_site_of_its_own(swapped: Swapped) -> None:
    heads = [site for site in swapped.hotswap.sites if isinstance(site, HeadSite)]
    assert len(heads) == swapped.base.plan.ties_head


def test_the_swapped_engine_writes_what_the_folded_checkpoint_gives(swapped: Swapped) -> None:
    swapped.replica.swap(swapped.variant)
    assert swapped.said()[0] == by_transformers(swapped.folded, PROMPTS, GREEDY.max_tokens)


def test_the_variant_changes_the_text(swapped: Swapped) -> None:
    swapped.replica.swap(swapped.variant)
    edited = swapped.said()
    swapped.replica.swap(swapped.base)
    assert swapped.said() != edited


def test_the_base_comes_back_exactly(swapped: Swapped) -> None:
    swapped.replica.swap(swapped.base)
    before = swapped.said()
    swapped.replica.swap(swapped.variant)
    swapped.replica.swap(swapped.base)
    assert swapped.said() == before


def test_kept_norms_are_taken_up(swapped: Swapped) -> None:
    assert swapped.variant.edit is not None
    kept = Edit(swapped.variant.edit.basis_HK, 1.0, keep_norms=True)
    assert swapped.replica.swap(Variant("kept", swapped.base.base_hash, swapped.base.plan, kept)) < 1e-3


@pytest.mark.parametrize("kind", [EmbeddingSite, HeadSite, BiasSite])
def test_what_is_stale_is_named(
    swapped: Swapped, kind: type[EmbeddingSite | HeadSite | BiasSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [site for site in swapped.hotswap.sites if type(site) is kind]
    if not sites:
        pytest.skip("this model has none")
    swapped.replica.swap(swapped.base)
    with monkeypatch.context() as patch:
        for site in sites:
            patch.setattr(site, "load", lambda weight: None)
        with pytest.raises(SwapFailed) as caught:
            swapped.replica.swap(swapped.variant)
    assert str(caught.value).startswith(f"{sites[0].places[0]}: ")
    swapped.replica.swap(swapped.base)


def test_the_studys_scope_leaves_embeddings_and_biases_as_they_are(swapped: Swapped) -> None:
    plan = plan_edit(swapped.hotswap.checkpoint)
    swapped.replica.swap(swapped.base)
    before = held(swapped)
    swapped.replica.swap(Variant("narrow", swapped.base.base_hash, plan, swapped.variant.edit))
    assert [name for name, value in held(swapped).items() if not torch.equal(value, before[name])] == []


def held(swapped: Swapped) -> dict[str, Tensor]:
    """Embeddings, biases and norms in the engine, copied; linear layers keep their weights elsewhere."""
    parameters = worker_here(swapped.replica.llm).get_model().named_parameters()
    return {name: value.detach().clone() for name, value in parameters if value.numel()}


def test_a_head_untied_is_refused_before_anything_changes(swapped: Swapped) -> None:
    if not swapped.base.plan.ties_head:
        pytest.skip("this head is a tensor of its own")
    swapped.replica.swap(swapped.base)
    plan = plan_edit(swapped.hotswap.checkpoint, Scope(embeddings=True, untie=True))
    with pytest.raises(EngineError, match=r"edit\.untie is not taken up by a running engine"):
        swapped.replica.swap(Variant("untied", swapped.base.base_hash, plan, swapped.variant.edit))
    assert swapped.replica.current is swapped.base
