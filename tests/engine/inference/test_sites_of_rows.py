"""Sites of embeddings, a shared head, biases and columns on plain modules that hold a rank's share as vLLM does."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from editing.checkpoint import Checkpoint, open_checkpoint
from editing.plan import PlannedTensor, Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from engine.errors import EngineError
from engine.inference.embeddings import EmbeddingSite, HeadSite
from engine.inference.probing import relative
from engine.inference.sites import BiasSite, LinearSite, Site
from engine.vllm_compat.layers import head_of
from tests.dense import without
from tests.tiny import save_tiny

CPU = torch.device("cpu")
HIDDEN, PADDED = 128, 64
EMBEDDING, POSITIONS = "transformer.wte.weight", "transformer.wpe.weight"
BIAS, WEIGHT = "transformer.h.1.mlp.c_proj.bias", "transformer.h.1.mlp.c_proj.weight"
DIRECTIONS_KH = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(3))
EDIT = Edit(orthonormal_basis(DIRECTIONS_KH), 0.7)


class Vocabulary(nn.Module):
    """A rank's rows with padding behind; what it multiplies with as a head is packed, as on the CPU, when it is told to."""

    def __init__(self, whole_VH: Tensor, rows: slice) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(PADDED, whole_VH.shape[1]), requires_grad=False)
        self.weight[: rows.stop - rows.start] = whole_VH[rows]
        self.shard_indices = SimpleNamespace(org_vocab_start_index=rows.start, org_vocab_end_index=rows.stop)
        self.quant_method = SimpleNamespace(embedding=self.look_up, apply=self.multiply, process_weights_after_loading=self.pack)
        self.pack(self)

    def look_up(self, module: nn.Module, rows_N: Tensor) -> Tensor:
        return embedding(rows_N, self.weight)

    def multiply(self, module: nn.Module, input_PH: Tensor, bias: None) -> Tensor:
        return input_PH @ self.packed_HV

    def pack(self, module: nn.Module) -> None:
        self.packed_HV = self.weight.T.clone()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save_tiny("gpt2 served", tmp_path_factory.mktemp("model"), dtype=torch.float32))


@pytest.fixture(scope="module")
def weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return load_file(checkpoint.directory / "model.safetensors")


def planned(checkpoint: Checkpoint, name: str) -> PlannedTensor:
    plan = plan_edit(checkpoint, Scope(embeddings=True, biases=True))
    return next(tensor for tensor in plan.edited if tensor.name == name)


def worst(site: Site, weight: Tensor) -> float:
    return max(float(relative(*pair)) for pair in zip(site.observed(), site.expected(weight), strict=True))


def vocabulary(checkpoint: Checkpoint, weights: dict[str, Tensor], rows: slice) -> tuple[Vocabulary, EmbeddingSite]:
    module = Vocabulary(weights[EMBEDDING], rows)
    return module, EmbeddingSite(planned(checkpoint, EMBEDDING), module, weights[EMBEDDING], CPU)


RANKS = [pytest.param(slice(0, 64), id="the first rank"), pytest.param(slice(64, 101), id="the last rank, padded")]


@pytest.mark.parametrize("rows", RANKS)
def test_a_ranks_rows_are_looked_up(checkpoint: Checkpoint, weights: dict[str, Tensor], rows: slice) -> None:
    _, site = vocabulary(checkpoint, weights, rows)
    assert worst(site, site.base) == 0


@pytest.mark.parametrize("rows", RANKS)
def test_a_ranks_rows_become_the_edited_ones(checkpoint: Checkpoint, weights: dict[str, Tensor], rows: slice) -> None:
    module, site = vocabulary(checkpoint, weights, rows)
    site.load(site.weight(EDIT))
    expected_VH = without(weights[EMBEDDING][rows].T, DIRECTIONS_KH, 0.7).T
    assert torch.allclose(module.weight[: len(expected_VH)].double(), expected_VH, atol=1e-6)


def test_the_padding_behind_a_ranks_rows_stays_zero(checkpoint: Checkpoint, weights: dict[str, Tensor]) -> None:
    module, site = vocabulary(checkpoint, weights, slice(64, 101))
    site.load(site.weight(EDIT))
    assert not module.weight[37:].any()


def test_stale_rows_are_seen(checkpoint: Checkpoint, weights: dict[str, Tensor]) -> None:
    _, site = vocabulary(checkpoint, weights, slice(0, 64))
    assert worst(site, site.weight(EDIT)) > 0.01


def test_a_shared_head_is_packed_anew(checkpoint: Checkpoint, weights: dict[str, Tensor]) -> None:
    module, rows = vocabulary(checkpoint, weights, slice(64, 101))
    head = HeadSite(rows, module, repacks=True)
    for site in (rows, head):
        site.load(site.weight(EDIT))
    assert worst(head, head.weight(EDIT)) < 1e-5


def test_a_shared_head_that_is_packed_as_it_was_is_seen(checkpoint: Checkpoint, weights: dict[str, Tensor]) -> None:
    module, rows = vocabulary(checkpoint, weights, slice(64, 101))
    head = HeadSite(rows, module, repacks=True)
    rows.load(rows.weight(EDIT))
    assert worst(head, head.weight(EDIT)) > 0.01


def test_a_heads_ideal_is_the_edit_that_nobody_rounded(checkpoint: Checkpoint, weights: dict[str, Tensor]) -> None:
    module, rows = vocabulary(checkpoint, weights, slice(0, 64))
    head = HeadSite(rows, module, repacks=True)
    ideal_PV = head.ideal(EDIT)[0]
    assert ideal_PV is not None
    assert float(relative(head.expected(head.weight(EDIT))[0], ideal_PV)) < 1e-5


def test_positions_are_looked_up_and_edited(checkpoint: Checkpoint, weights: dict[str, Tensor]) -> None:
    module = nn.Embedding.from_pretrained(weights[POSITIONS].clone())
    site = EmbeddingSite(planned(checkpoint, POSITIONS), module, weights[POSITIONS], CPU)
    site.load(site.weight(EDIT))
    assert torch.allclose(module.weight.double(), without(weights[POSITIONS].T, DIRECTIONS_KH, 0.7).T, atol=1e-6)


class Columns(nn.Module):
    """A rank's columns of a linear layer, with the whole bias."""

    def __init__(self, weight_HI: Tensor, bias_H: Tensor, rank: int, ranks: int) -> None:
        super().__init__()
        self.input_size_per_partition, self.tp_rank, self.params_dtype = weight_HI.shape[1] // ranks, rank, torch.float32
        part = slice(rank * self.input_size_per_partition, (rank + 1) * self.input_size_per_partition)
        self.weight, self.bias = (nn.Parameter(one.clone(), requires_grad=False) for one in (weight_HI[:, part], bias_H))
        self.quant_method = SimpleNamespace(apply=self.apply_linear)

    def apply_linear(self, module: nn.Module, input_PI: Tensor, bias: Any) -> Tensor:
        return linear(input_PI, self.weight, bias)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_ranks_columns_become_the_edited_ones(checkpoint: Checkpoint, weights: dict[str, Tensor], rank: int) -> None:
    module = Columns(weights[WEIGHT].T, weights[BIAS], rank, 2)
    site = LinearSite(planned(checkpoint, WEIGHT), module, weights[WEIGHT], CPU, repacks=False)
    site.load(site.weight(EDIT))
    expected_HI = without(weights[WEIGHT].T, DIRECTIONS_KH, 0.7)[:, rank * 40 : rank * 40 + 40]
    assert torch.allclose(module.weight.double(), expected_HI, atol=1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_every_ranks_bias_becomes_the_edited_one(checkpoint: Checkpoint, weights: dict[str, Tensor], rank: int) -> None:
    module = Columns(weights[WEIGHT].T, weights[BIAS], rank, 2)
    site = BiasSite(planned(checkpoint, BIAS), module, weights[BIAS], CPU)
    site.load(site.weight(EDIT))
    assert torch.allclose(module.bias.double(), without(weights[BIAS][:, None], DIRECTIONS_KH, 0.7)[:, 0], atol=1e-6)


def test_a_stale_bias_is_seen(checkpoint: Checkpoint, weights: dict[str, Tensor]) -> None:
    module = Columns(weights[WEIGHT].T, weights[BIAS], 0, 1)
    site = BiasSite(planned(checkpoint, BIAS), module, weights[BIAS], CPU)
    assert worst(site, site.weight(EDIT)) > 0.01


def model_with(module: nn.Module, head: nn.Module | None = None) -> nn.Module:
    """A text tower with an embedding and perhaps a head, inside a model of more than text."""
    model, tower = nn.Module(), nn.Module()
    tower.add_module("embed_tokens", module)
    if head is not None:
        tower.add_module("lm_head", head)
    model.add_module("language_model", tower)
    return model


def test_a_head_that_vllm_tied_by_itself_is_refused(weights: dict[str, Tensor]) -> None:
    module, head = (Vocabulary(weights[EMBEDDING], slice(0, 64)) for _ in range(2))
    head.weight = module.weight
    with pytest.raises(EngineError, match="output head as one tensor, the checkpoint as two"):
        head_of(model_with(module, head), module, EMBEDDING, ties_head=False)


def test_a_tied_head_that_vllm_holds_by_itself_is_refused(weights: dict[str, Tensor]) -> None:
    module, other = (Vocabulary(weights[EMBEDDING], slice(0, 64)) for _ in range(2))
    with pytest.raises(EngineError, match="output head as two tensors, the checkpoint as one"):
        head_of(model_with(module, other), module, EMBEDDING, ties_head=True)


def test_a_head_of_its_own_stays_as_it_is(weights: dict[str, Tensor]) -> None:
    module, other = (Vocabulary(weights[EMBEDDING], slice(0, 64)) for _ in range(2))
    assert head_of(model_with(module, other), module, EMBEDDING, ties_head=False) is None


def test_a_head_that_shares_the_embeddings_weight_is_found(weights: dict[str, Tensor]) -> None:
    module, head = (Vocabulary(weights[EMBEDDING], slice(0, 64)) for _ in range(2))
    head.weight = module.weight
    assert head_of(model_with(module, head), module, EMBEDDING, ties_head=True) is head


def test_a_model_without_a_head_multiplies_with_its_embedding(weights: dict[str, Tensor]) -> None:
    module = Vocabulary(weights[EMBEDDING], slice(0, 64))
    assert head_of(model_with(module), module, EMBEDDING, ties_head=True) is module
