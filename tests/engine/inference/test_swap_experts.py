"""The hot swap of experts in a real engine: what the folded checkpoint gives, back to the base exactly, nothing stale unseen.

transformers on the checkpoint that the writer made is the reference, and with -m slow a vLLM engine on it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from editing.checkpoint import open_checkpoint
from editing.families import FAMILIES as KNOWN
from editing.plan import Scope
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.configs.schema import SamplingConfig
from engine.errors import SwapFailed
from engine.inference.experts import ExpertBiasSite, ExpertsSite
from engine.inference.hotswap import Edits, HotSwap
from engine.inference.replica import Replica
from engine.models.variant import Variant
from engine.vllm_compat import worker_here
from tests.greedy import by_transformers, by_vllm
from tests.swapped import tiny_replica
from tests.tiny import fuse_experts, save_tiny

pytestmark = pytest.mark.engine
PROMPTS = [[1, 5 + index, 9, 17, 3 + index] for index in range(6)]
GREEDY = SamplingConfig(max_tokens=6)
SCOPES = {"gpt_oss served": Scope(embeddings=True, biases=True)}
FUSED = "qwen3_moe served, fused"
FAMILIES = ["qwen3_moe served", "mixtral served", "gpt_oss served", FUSED]
FAMILIES += ["olmoe served"] if "olmoe" in KNOWN else []
SHAPES = [
    pytest.param(name, id=name.replace(" served", ""), marks=[pytest.mark.slow] if number else [])
    for number, name in enumerate(FAMILIES)
]


@dataclass(frozen=True)
class Swapped:
    """An engine with the weights that vLLM loaded, its base, a variant, and the checkpoint that the writer makes of it."""

    replica: Replica
    base: Variant
    variant: Variant
    folded: Path
    loaded: dict[str, Tensor]

    @property
    def hotswap(self) -> HotSwap:
        return worker_here(self.replica.llm).hotswap

    @property
    def edits(self) -> Edits:
        assert self.variant.edit is not None
        return self.hotswap.edits(self.variant.edit.basis_HK, self.variant.alphas)

    def said(self) -> tuple[list[list[int]], list[float | None]]:
        """Greedy tokens and their mean log-probabilities, of what the engine holds."""
        found = sorted(self.replica.generate(PROMPTS, GREEDY, logprobs=True), key=lambda one: one.index)
        return [one.token_ids for one in found], [one.mean_logprob for one in found]

    def held(self) -> dict[str, Tensor]:
        """The experts' and embeddings' parameters, copied; linear layers keep theirs elsewhere."""
        return held(self.replica)


def held(replica: Replica) -> dict[str, Tensor]:
    parameters = worker_here(replica.llm).get_model().named_parameters()
    return {name: value.detach().clone() for name, value in parameters if value.numel()}


@pytest.fixture(scope="module", params=SHAPES)
def swapped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swapped]:
    folder = save_tiny(request.param.split(",")[0], tmp_path_factory.mktemp("model"), dtype=torch.float32)
    if request.param == FUSED:
        fuse_experts(folder)
    with tiny_replica(folder, SCOPES.get(request.param)) as (replica, base, _):
        checkpoint = open_checkpoint(folder)
        basis_HK = orthonormal_basis(torch.randn(2, checkpoint.hidden_size, generator=torch.Generator().manual_seed(5)))
        variant = Variant("k2", base.base_hash, base.plan, Edit(basis_HK, 1.0))
        folded = tmp_path_factory.mktemp("made") / "folded"
        write_edited(checkpoint, base.plan, variant.edit, folded, record={}, card=lambda proofs: "")
        yield Swapped(replica, base, variant, folded, held(replica))


def test_the_base_put_in_is_what_vllm_loaded(swapped: Swapped) -> None:
    """Bit for bit, packed as they are: experts are packed one by one here, and all at once by vLLM."""
    swapped.replica.swap(swapped.variant)
    swapped.replica.swap(swapped.base)
    assert [name for name, value in swapped.held().items() if not torch.equal(value, swapped.loaded[name])] == []


def test_the_variant_changes_every_layer_of_experts(swapped: Swapped) -> None:
    swapped.replica.swap(swapped.variant)
    experts = {name: value for name, value in swapped.held().items() if ".w2_weight" in name}
    assert experts
    assert [name for name, value in experts.items() if torch.equal(value, swapped.loaded[name])] == []


def test_the_swapped_engine_writes_what_the_folded_checkpoint_gives(swapped: Swapped) -> None:
    swapped.replica.swap(swapped.variant)
    assert swapped.said()[0] == by_transformers(swapped.folded, PROMPTS, GREEDY.max_tokens)


def test_the_variant_changes_the_text(swapped: Swapped) -> None:
    swapped.replica.swap(swapped.variant)
    edited = swapped.said()[0]
    swapped.replica.swap(swapped.base)
    assert swapped.said()[0] != edited


def test_the_base_comes_back_exactly(swapped: Swapped) -> None:
    swapped.replica.swap(swapped.base)
    before = swapped.said()
    swapped.replica.swap(swapped.variant)
    swapped.replica.swap(swapped.base)
    assert swapped.said() == before


@pytest.mark.slow
def test_the_swapped_engine_is_an_engine_on_the_folded_checkpoint(swapped: Swapped) -> None:
    arguments = {**swapped.replica.arguments, "model": str(swapped.folded), "worker_extension_cls": ""}
    tokens, logprobs = by_vllm(arguments, PROMPTS, GREEDY.max_tokens)
    swapped.replica.swap(swapped.variant)
    assert swapped.said() == (tokens, [total / len(said) for total, said in zip(logprobs, tokens, strict=True)])


def test_the_swap_has_the_bits_of_the_checkpoint_writer(swapped: Swapped) -> None:
    written, hotswap = load_file(swapped.folded / "model.safetensors"), swapped.hotswap
    assert {site.name for site in hotswap.sites} == set(swapped.variant.alphas)
    found = [(site.name, torch.equal(hotswap.weight(site, swapped.edits), written[site.name])) for site in hotswap.sites]
    assert [name for name, is_equal in found if not is_equal] == []


def test_kept_norms_are_taken_up(swapped: Swapped) -> None:
    assert swapped.variant.edit is not None
    kept = Edit(swapped.variant.edit.basis_HK, 1.0, keep_norms=True)
    assert swapped.replica.swap(Variant("kept", swapped.base.base_hash, swapped.base.plan, kept)) < 1e-3


def of_experts(swapped: Swapped) -> list[ExpertsSite]:
    return [site for site in swapped.hotswap.sites if isinstance(site, ExpertsSite)]


def refused(swapped: Swapped) -> str:
    """What the probe says of weights that should be the variant's, the base's having been there before."""
    swapped.hotswap.applied = {}
    with pytest.raises(SwapFailed) as caught:
        swapped.hotswap.probe(swapped.edits)
    swapped.replica.current = None
    swapped.replica.swap(swapped.base)
    return str(caught.value)


def test_one_stale_expert_is_named(swapped: Swapped) -> None:
    swapped.replica.swap(swapped.variant)
    site = of_experts(swapped)[-1]
    weight = site.weight(swapped.edits[site.name]).clone()
    if len(site.places) == 1:
        weight = site.base
    else:
        weight[-1] = site.base[-1]
    site.load(weight)
    assert refused(swapped).startswith(f"{site.places[-1]}: ")


def test_experts_in_each_others_place_are_noticed(swapped: Swapped) -> None:
    swapped.replica.swap(swapped.variant)
    one, other = of_experts(swapped)[0], of_experts(swapped)[1]
    weight = other.weight(swapped.edits[other.name])
    one.load(weight if len(one.places) == 1 else one.weight(swapped.edits[one.name]).flip(0))
    assert refused(swapped).startswith(f"{one.places[0]}: ")


def test_stale_biases_of_experts_are_named(swapped: Swapped) -> None:
    sites = [site for site in swapped.hotswap.sites if isinstance(site, ExpertBiasSite)]
    if not sites:
        pytest.skip("these experts have no biases")
    swapped.replica.swap(swapped.variant)
    sites[-1].load(sites[-1].base)
    assert refused(swapped).startswith(f"{sites[-1].name}: ")
