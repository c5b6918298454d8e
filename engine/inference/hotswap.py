"""Exchanges a loaded vLLM model's o_proj and down_proj for a variant's, in place, and proves that it took.

W0 always comes from the base checkpoint, never from the weights in the engine, so base -> variant -> base is exact. A
plain class on a torch module; engine.inference.vllm_worker puts it into vLLM's workers.
"""
# H = hidden size, I = this worker's share of the input size, K = directions, P = probe vectors, S = sites

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editing.apply import edit_of
from editing.checkpoint import Checkpoint
from editing.plan import EditPlan, PlannedTensor
from editing.projection import Edit, Fold, Removal, check_edit, project_out
from engine.errors import EngineError, SwapFailed
from engine.vllm_compat import columns_of, exchange_weight, layer_output, row_parallel

NUM_PROBES = 8
# Largest ||y - expected|| / ||expected|| of a layer that is right, by the type that rounds most on the way.
PROBE_TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 5e-3, torch.float32: 1e-3}
# How far the share of the expected change may be from 1; the old weights give 0, the base between two edits about 1/2.
CHANGE_TOLERANCE = 0.25


Edits = Mapping[str, Removal]  # by tensor name; a tensor that is not in it has the base's weights


@dataclass(frozen=True)
class Site:
    """One linear layer that a swap exchanges: its tensor, the module, this worker's columns of the (H, I) matrix, and the
    base's output for the probe vectors as computed from the checkpoint, not by the engine."""

    tensor: PlannedTensor
    module: Any  # vLLM's RowParallelLinear
    columns: slice
    probe_PI: Tensor
    base_output_PH: Tensor

    @property
    def name(self) -> str:
        return self.tensor.name


class HotSwap:
    """Swaps variants into `model`, whose base weights are `checkpoint`; `plan` names every projection that writes.

    W0 of these layers stays at hand: copied to a GPU, and on the CPU as the mapped file's own pages, which cost no memory
    of the process but are not mapped anew with each swap.
    """

    def __init__(self, model: nn.Module, checkpoint: Checkpoint, plan: EditPlan, *, repacks: bool) -> None:
        self.checkpoint = checkpoint
        self.repacks = repacks
        self.device = next(model.parameters()).device
        self.applied: Edits = {}
        self._base: dict[str, Tensor] = {}
        self.sites = [self._site(model, tensor) for tensor in plan.edited]

    def edits(self, basis_HK: Tensor, alphas: Mapping[str, float], *, keep_norms: bool = False) -> Edits:
        """Each named tensor's own edit: its alpha, and in front of the norm that may follow it."""
        tensors = {site.name: site.tensor for site in self.sites}
        if unknown := sorted(set(alphas) - set(tensors)):
            raise EngineError(f"{unknown[0]} cannot be swapped in a running engine. Write the variant with bin/edit.")
        edits = {name: Edit(basis_HK, alpha, keep_norms) for name, alpha in alphas.items()}
        for edit in edits.values():
            check_edit(edit, self.checkpoint.hidden_size)
        return self._on_device({name: edit_of(self.checkpoint, tensors[name], edit) for name, edit in edits.items()})

    def swap(self, edits: Edits) -> float:
        """Load the variant's weights ({}: the base's) and probe every layer.

        Returns the largest relative probe error. Raises SwapFailed, naming the layer, where the engine's output is not
        the variant's.
        """
        expected: list[Tensor] = []
        for site in self.sites:
            weight_HI = self.weight(site, edits)
            expected.append(_product(site, weight_HI))
            self._load(site, weight_HI)
        worst = self._compare(edits, expected)
        self.applied = edits
        return worst

    def probe(self, edits: Edits) -> float:
        """The largest probe error of weights that are loaded already: fixed random vectors pushed through every layer."""
        return self._compare(edits, [_product(site, self.weight(site, edits)) for site in self.sites])

    def weight(self, site: Site, edits: Edits) -> Tensor:
        """This worker's part of a variant's matrix, (H, I), rounded to the checkpoint's type as the writer rounds it."""
        edit = edits.get(site.name)
        return self.base_weight(site) if edit is None else project_out(self.base_weight(site), edit)

    def base_weight(self, site: Site) -> Tensor:
        """This worker's part of W0, (H, I), on the model's device."""
        return self._base[site.name]

    def _on_device(self, edits: Mapping[str, Removal]) -> Edits:
        """The edits with their factors where the weights are; one that many layers share is moved once."""
        moved: dict[int, Tensor] = {}
        for edit in edits.values():
            for factor_HK in (edit.write_HK, edit.read_HK):
                moved.setdefault(id(factor_HK), factor_HK.to(self.device))
        return {
            name: Fold(moved[id(edit.write_HK)], moved[id(edit.read_HK)], edit.alpha, edit.keep_norms)
            for name, edit in edits.items()
        }

    def _compare(self, edits: Edits, expected: list[Tensor]) -> float:
        """The largest error over layers. Raises SwapFailed for the first layer, in the model's order, that is not right.

        All layers' figures leave the device together: a GPU is waited for once.
        """
        figures = [
            figure
            for site, expected_PH in zip(self.sites, expected, strict=True)
            for figure in self._figures(site, edits, expected_PH)
        ]
        values = iter(torch.stack(figures).tolist())
        return max(_judge(site, values, self._tolerances(site)) for site in self.sites)

    def _figures(self, site: Site, edits: Edits, expected_PH: Tensor) -> list[Tensor]:
        """Five numbers of a layer, on its device: relative error of the engine and of the weights, and three of the change."""
        observed_PH = _apply(site.module, site.probe_PI)
        ideal_PH = _edited_output(site.base_output_PH, edits.get(site.name))
        before_PH = _edited_output(site.base_output_PH, self.applied.get(site.name))
        if before_PH is None:
            before_PH = _product(site, self.weight(site, self.applied))
        arithmetic = relative(expected_PH, expected_PH if ideal_PH is None else ideal_PH)
        return [relative(observed_PH, expected_PH), arithmetic, *change_figures(observed_PH, expected_PH, before_PH)]

    def _tolerances(self, site: Site) -> tuple[float, float]:
        """Of the engine's output, and of the rounded weights against the edit that nobody rounded."""
        of_engine = PROBE_TOLERANCE[site.probe_PI.dtype]
        return of_engine, max(of_engine, PROBE_TOLERANCE[self.base_weight(site).dtype])

    def _site(self, model: nn.Module, tensor: PlannedTensor) -> Site:
        module = row_parallel(model, tensor.name.removesuffix(".weight"))
        columns = columns_of(module)
        base_HI = _matrix(self.checkpoint, tensor)[:, columns]
        self._base[tensor.name] = base_HI.to(self.device)
        generator = torch.Generator().manual_seed(sum(tensor.name.encode()))
        probe_PI = torch.randn(NUM_PROBES, columns.stop - columns.start, generator=generator).to(module.params_dtype)
        base_output_PH = probe_PI.float() @ base_HI.to(module.params_dtype).float().T
        return Site(tensor, module, columns, probe_PI.to(self.device), base_output_PH.to(self.device, torch.float64))

    def _load(self, site: Site, weight_HI: Tensor) -> None:
        exchange_weight(site.module, weight_HI.to(site.probe_PI.dtype), repacks=self.repacks)


def _matrix(checkpoint: Checkpoint, tensor: PlannedTensor) -> Tensor:
    weight = checkpoint.read(tensor.name)
    return weight if tensor.axis == 0 else weight.T  # Conv1D is stored (input, hidden); vLLM turns it round


def _apply(module: Any, probe_PI: Tensor) -> Tensor:
    with torch.inference_mode():
        return layer_output(module, probe_PI).to(torch.float64)


def _product(site: Site, weight_HI: Tensor) -> Tensor:
    """The layer's output for the probe vectors with these weights, in the engine's type: (P, H) float64."""
    in_engine_HI = weight_HI.to(site.probe_PI.dtype)
    return (site.probe_PI.float() @ in_engine_HI.float().T).to(torch.float64)


def _edited_output(base_output_PH: Tensor, edit: Removal | None) -> Tensor | None:
    """(W0 - alpha A B^T W0) x of the base's output, by arithmetic of its own; None where each column has its own factor."""
    if edit is None:
        return base_output_PH
    if edit.keep_norms:
        return None
    return base_output_PH - edit.alpha * (base_output_PH @ edit.read_HK) @ edit.write_HK.T


def relative(found_PH: Tensor, expected_PH: Tensor) -> Tensor:
    """||found - expected|| / ||expected||, a scalar on their device."""
    return (found_PH - expected_PH).norm() / expected_PH.norm()


def change_figures(observed_PH: Tensor, expected_PH: Tensor, before_PH: Tensor) -> list[Tensor]:
    """<observed - before, change>, ||change||^2 with change = expected - before, and the size of one expected component.

    A stale rank-1 edit is only about 1.8 % of the output at H = 3072, but all of the change.
    """
    change_PH = expected_PH - before_PH
    size = expected_PH.norm() / expected_PH.numel() ** 0.5
    return [((observed_PH - before_PH) * change_PH).sum(), change_PH.square().sum(), size]


def share_of_change(arrived: float, squared: float, size: float, tolerance: float) -> float | None:
    """Which part of the expected change is there, of `change_figures`; None where the change drowns in rounding."""
    if squared**0.5 <= 8 * tolerance * size:
        return None
    return arrived / squared


def _judge(site: Site, figures: Iterator[float], tolerances: tuple[float, float]) -> float:
    """The layer's error, of its five figures. Raises SwapFailed where one of them says that the swap did not take."""
    error, arithmetic, arrived, squared, size = (next(figures) for _ in range(5))
    of_engine, of_weights = tolerances
    if not error <= of_engine:
        raise SwapFailed(f"{site.name}: the engine's output is off by {error:.1%} after the swap (at most {of_engine:.1%}).")
    if not arithmetic <= of_weights:
        raise SwapFailed(f"{site.name}: the edited weights are off by {arithmetic:.1%} (at most {of_weights:.1%}).")
    share = share_of_change(arrived, squared, size, of_engine)
    if share is not None and not abs(share - 1) <= CHANGE_TOLERANCE:
        raise SwapFailed(f"{site.name}: {share:.0%} of the expected change arrived (100% +- {CHANGE_TOLERANCE:.0%}).")
    return error
