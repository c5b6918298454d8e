"""Sites on plain modules that hold a rank's share as vLLM does, without an engine: columns, experts and rows of each rank."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import silu

from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from engine.errors import EngineError
from engine.inference.experts import ExpertBiasSite, ExpertsSite, expert_layer, experts_name
from engine.inference.probing import relative
from engine.inference.sites import Site
from engine.vllm_compat.layers import adds_expert_biases
from tests.dense import without
from tests.tiny import fuse_experts, save_tiny

CPU = torch.device("cpu")
BLOCK = "model.layers.1.mlp.experts"
EDITED = ("qwen3_moe one by one", "qwen3_moe fused", "gpt_oss served")


class RankOfExperts:
    """A rank's experts as vLLM holds them, of the whole (E, H, I) tensors; `chosen` are its experts, `part` its columns."""

    def __init__(self, whole: "WholeExperts", chosen: list[int] | None, rank: int, ranks: int) -> None:
        width = whole.down_EHI.shape[2] // ranks
        part = slice(rank * width, (rank + 1) * width)
        numbers = list(range(len(whole.down_EHI))) if chosen is None else chosen
        self.whole, self.part, self.numbers = whole, part, numbers
        self.w2_weight = nn.Parameter(whole.down_EHI[numbers][:, :, part].clone(), requires_grad=False)
        biases = None if whole.bias_EH is None else whole.bias_EH[numbers].clone()
        if biases is not None:
            self.w2_bias = nn.Parameter(biases if rank == 0 else torch.zeros_like(biases), requires_grad=False)
        self.params_dtype = torch.float32
        self.expert_map = None if chosen is None else torch.full((len(whole.down_EHI),), -1)
        if self.expert_map is not None:
            self.expert_map[chosen] = torch.arange(len(numbers))
        self.moe_config = SimpleNamespace(moe_parallel_config=SimpleNamespace(tp_rank=rank, tp_size=ranks))
        self.quant_method = SimpleNamespace(apply=self.apply, topk_indices_dtype=None)

    def apply(self, *, x: Tensor, topk_ids: Tensor, topk_weights: Tensor, **ignored: Any) -> Tensor:
        out = torch.zeros_like(x)
        for row, number in enumerate(topk_ids[:, 0].tolist()):
            place = self.numbers.index(number)
            inner_I = self.whole.inner(number, x[row])[self.part]
            out[row] = self.w2_weight[place] @ inner_I * topk_weights[row, 0]
            if hasattr(self, "w2_bias"):
                out[row] += self.w2_bias[place]
        return out


class WholeExperts:
    """One block's experts, read from the file by names that stand here, with what goes into each down projection."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.bias_EH: Tensor | None = None
        self.is_gpt_oss = f"{BLOCK}.down_proj_bias" in weights
        if self.is_gpt_oss:
            self.down_EHI = weights[f"{BLOCK}.down_proj"].transpose(1, 2)
            self.bias_EH = weights[f"{BLOCK}.down_proj_bias"]
            both_EJH = weights[f"{BLOCK}.gate_up_proj"].transpose(1, 2)
            self.gate_EIH, self.up_EIH = both_EJH[:, 0::2], both_EJH[:, 1::2]
            biases_EJ = weights[f"{BLOCK}.gate_up_proj_bias"]
            self.gate_EI, self.up_EI = biases_EJ[:, 0::2], biases_EJ[:, 1::2]
        elif f"{BLOCK}.down_proj" in weights:
            self.down_EHI = weights[f"{BLOCK}.down_proj"]
            self.gate_EIH, self.up_EIH = weights[f"{BLOCK}.gate_up_proj"].split(self.down_EHI.shape[2], dim=1)
        else:
            names = ("down_proj", "gate_proj", "up_proj")
            stacked = [torch.stack([weights[f"{BLOCK}.{number}.{name}.weight"] for number in range(5)]) for name in names]
            self.down_EHI, self.gate_EIH, self.up_EIH = stacked

    def inner(self, number: int, x_H: Tensor) -> Tensor:
        gate_I, up_I = self.gate_EIH[number] @ x_H, self.up_EIH[number] @ x_H
        if not self.is_gpt_oss:
            return silu(gate_I) * up_I
        gate_I = (gate_I + self.gate_EI[number]).clamp(max=7.0)
        up_I = (up_I + self.up_EI[number]).clamp(-7.0, 7.0)
        return (up_I + 1) * gate_I * torch.sigmoid(1.702 * gate_I)


@pytest.fixture(scope="module", params=EDITED)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of experts; "fused" has each block's in one tensor."""
    family = "gpt_oss served" if request.param == "gpt_oss served" else "qwen3_moe served"
    made = save_tiny(family, tmp_path_factory.mktemp("model"), dtype=torch.float32)
    if request.param.endswith("fused"):
        fuse_experts(made)
    return made


RANKS = [
    pytest.param((None, 0, 1), id="one rank"),
    pytest.param((None, 0, 2), id="the first half of the columns"),
    pytest.param((None, 1, 2), id="the second half of the columns"),
    pytest.param(([0, 1, 2], 0, 1), id="the first experts"),
    pytest.param(([3, 4], 0, 1), id="the last experts"),
    pytest.param(([1, 3], 0, 1), id="every second expert"),
]


def sites_of_experts(folder: Path, rank: tuple[list[int] | None, int, int]) -> tuple[RankOfExperts, list[Site]]:
    """A rank's layer, and its sites of one block's experts and their biases."""
    checkpoint = open_checkpoint(folder)
    module = RankOfExperts(WholeExperts(load_file(folder / "model.safetensors")), *rank)
    sites: list[Site] = []
    for tensor in plan_edit(checkpoint, Scope(biases=True)).edited:
        name = experts_name(tensor.name)
        if name is None or name.block != BLOCK:
            continue
        layer = expert_layer(module, checkpoint, name)
        if name.is_bias and adds_expert_biases(module):
            sites.append(ExpertBiasSite(tensor, layer, checkpoint, CPU))
        elif not name.is_bias and layer.held_of(name):
            sites.append(ExpertsSite(tensor, layer, checkpoint, CPU, repacks=False))
    return module, sites


def errors(site: Site, weight: Tensor) -> list[float]:
    figures = zip(site.observed(), site.expected(weight), site.offsets(), strict=True)
    return [float(relative(observed, expected + offset)) for observed, expected, offset in figures]


@pytest.mark.parametrize("rank", RANKS)
def test_the_probe_of_a_ranks_experts_expects_what_they_give(folder: Path, rank: tuple[list[int] | None, int, int]) -> None:
    _, sites = sites_of_experts(folder, rank)
    found = [error for site in sites for error in errors(site, site.base)]
    assert found
    assert max(found) < 1e-5


@pytest.mark.parametrize("rank", RANKS)
def test_a_ranks_experts_become_the_edited_ones(folder: Path, rank: tuple[list[int] | None, int, int]) -> None:
    module, sites = sites_of_experts(folder, rank)
    directions_KH = torch.randn(2, 96, generator=torch.Generator().manual_seed(3))
    for site in sites:
        site.load(site.weight(Edit(orthonormal_basis(directions_KH), 0.7)))
    expected = [without(module.whole.down_EHI[number], directions_KH, 0.7)[:, module.part] for number in module.numbers]
    assert torch.allclose(module.w2_weight.double(), torch.stack(expected), atol=1e-6)


def test_a_ranks_biases_become_the_edited_ones(folder: Path) -> None:
    module, sites = sites_of_experts(folder, (None, 0, 1))
    if module.whole.bias_EH is None:
        pytest.skip("these experts have no biases")
    directions_KH = torch.randn(2, 96, generator=torch.Generator().manual_seed(3))
    for site in sites:
        site.load(site.weight(Edit(orthonormal_basis(directions_KH), 0.7)))
    assert torch.allclose(module.w2_bias.double(), without(module.whole.bias_EH.T, directions_KH, 0.7).T, atol=1e-6)


def test_a_rank_that_adds_no_biases_keeps_its_zeros(folder: Path) -> None:
    _, sites = sites_of_experts(folder, (None, 1, 2))
    assert [site for site in sites if isinstance(site, ExpertBiasSite)] == []


def test_a_stale_expert_of_a_rank_is_seen(folder: Path) -> None:
    _, sites = sites_of_experts(folder, ([1, 3], 0, 1))
    edit = Edit(orthonormal_basis(torch.randn(2, 96, generator=torch.Generator().manual_seed(3))), 1.0)
    assert min(error for site in sites if isinstance(site, ExpertsSite) for error in errors(site, site.weight(edit))) > 0.01


def test_an_experts_ideal_is_the_edit_that_nobody_rounded(folder: Path) -> None:
    _, sites = sites_of_experts(folder, (None, 1, 2))
    edit = Edit(orthonormal_basis(torch.randn(2, 96, generator=torch.Generator().manual_seed(3))), 0.7)
    for site in sites:
        pairs = zip(site.expected(site.weight(edit)), site.ideal(edit), strict=True)
        assert max(float(relative(found, ideal)) for found, ideal in pairs if ideal is not None) < 1e-5, site.name


def test_experts_that_do_not_divide_over_the_ranks_are_refused(folder: Path) -> None:
    checkpoint, name = open_checkpoint(folder), experts_name(f"{BLOCK}.down_proj")
    module = RankOfExperts(WholeExperts(load_file(folder / "model.safetensors")), None, 0, 1)
    module.moe_config.moe_parallel_config.tp_size = 3
    assert name is not None
    with pytest.raises(EngineError, match="not split evenly over 3 ranks"):
        expert_layer(module, checkpoint, name)


def test_another_number_of_experts_than_the_map_says_is_refused(folder: Path) -> None:
    checkpoint, name = open_checkpoint(folder), experts_name(f"{BLOCK}.down_proj")
    module = RankOfExperts(WholeExperts(load_file(folder / "model.safetensors")), [1, 3], 0, 1)
    module.expert_map = None
    assert name is not None
    with pytest.raises(EngineError, match="vLLM holds 2 experts where 5 are expected"):
        expert_layer(module, checkpoint, name)
