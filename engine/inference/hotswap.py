"""Exchanges a loaded vLLM model's writers for a variant's, in place, and proves that it took.

W0 always comes from the base checkpoint, never from the weights in the engine, so base -> variant -> base is exact. A
plain class on a torch module; engine.inference.vllm_worker puts it into vLLM's workers. The places of the tensors are
engine.inference.sites; what counts as proof is engine.inference.probing.
"""
# H = hidden size, K = directions, N = probe vectors or rows

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from editing.apply import edit_of
from editing.checkpoint import Checkpoint
from editing.plan import EditPlan
from editing.projection import Edit, Fold, Removal, check_edit
from engine.errors import EngineError
from engine.inference.opening import sites_of
from engine.inference.probing import change_figures, judge, relative
from engine.inference.sites import Site

Edits = Mapping[str, Removal]  # by tensor name; a tensor that is not in it has the base's weights


class HotSwap:
    """Swaps variants into `model`, whose base weights are `checkpoint`; `plan` names every tensor that a swap may change.

    W0 of these tensors stays at hand: copied to a GPU, and on the CPU as the mapped file's own pages, which cost no memory
    of the process but are not mapped anew with each swap.
    """

    def __init__(self, model: nn.Module, checkpoint: Checkpoint, plan: EditPlan, *, repacks: bool) -> None:
        self.checkpoint = checkpoint
        self.applied: Edits = {}
        self.device = next(model.parameters()).device
        self.tensors = {tensor.name: tensor for tensor in plan.edited}  # a rank may hold no part of some
        self.sites = sites_of(model, checkpoint, plan, repacks=repacks)

    def edits(self, basis_HK: Tensor, alphas: Mapping[str, float], *, keep_norms: bool = False) -> Edits:
        """Each named tensor's own edit: its alpha, and in front of the norm that may follow it."""
        if unknown := sorted(set(alphas) - set(self.tensors)):
            raise EngineError(f"{unknown[0]} is not swapped in this running engine. Write the variant with bin/edit.")
        edits = {name: Edit(basis_HK, alpha, keep_norms) for name, alpha in alphas.items()}
        for edit in edits.values():
            check_edit(edit, self.checkpoint.hidden_size)
        return self._on_device({name: edit_of(self.checkpoint, self.tensors[name], edit) for name, edit in edits.items()})

    def swap(self, edits: Edits) -> float:
        """Load the variant's weights ({}: the base's) and probe every site.

        Returns the largest relative probe error. Raises SwapFailed, naming the place, where the engine's output is not
        the variant's.
        """
        expected: list[list[Tensor]] = []
        for site in self.sites:
            weight = self.weight(site, edits)
            expected.append(site.expected(weight))
            self._load(site, weight)
        worst = self._compare(edits, expected)
        self.applied = edits
        return worst

    def probe(self, edits: Edits) -> float:
        """The largest probe error of weights that are loaded already: fixed random vectors pushed through every site."""
        return self._compare(edits, [site.expected(self.weight(site, edits)) for site in self.sites])

    def weight(self, site: Site, edits: Edits) -> Tensor:
        """This worker's part of a variant's tensor, rounded to the checkpoint's type as the writer rounds it."""
        return site.weight(edits.get(site.name))

    def base_weight(self, site: Site) -> Tensor:
        """This worker's part of W0, on the model's device."""
        return site.base

    def _load(self, site: Site, weight: Tensor) -> None:
        site.load(weight)

    def _on_device(self, edits: Mapping[str, Removal]) -> Edits:
        """The edits with their factors where the weights are; one that many tensors share is moved once."""
        moved: dict[int, Tensor] = {}
        for edit in edits.values():
            for factor_HK in (edit.write_HK, edit.read_HK):
                moved.setdefault(id(factor_HK), factor_HK.to(self.device))
        return {
            name: Fold(moved[id(edit.write_HK)], moved[id(edit.read_HK)], edit.alpha, edit.keep_norms)
            for name, edit in edits.items()
        }

    def _compare(self, edits: Edits, expected: list[list[Tensor]]) -> float:
        """The largest error over places. Raises SwapFailed for the first, in the model's order, that is not right.

        All figures leave the device together: a GPU is waited for once.
        """
        figures = [
            figure
            for site, expected_of_site in zip(self.sites, expected, strict=True)
            for figure in self._figures(site, edits, expected_of_site)
        ]
        values = iter(torch.stack(figures).tolist())
        return max(judge(place, values, site.tolerances) for site in self.sites for place in site.places)

    def _figures(self, site: Site, edits: Edits, expected: list[Tensor]) -> list[Tensor]:
        """Five numbers a place, on its device: relative error of the engine and of the weights, and three of the change."""
        ideal, before = site.ideal(edits.get(site.name)), self._before(site)
        places = zip(site.observed(), expected, ideal, before, site.offsets(), strict=True)
        figures: list[Tensor] = []
        for observed_NH, expected_NH, ideal_NH, before_NH, offset in places:
            arithmetic = relative(expected_NH, expected_NH if ideal_NH is None else ideal_NH)
            figures += [relative(observed_NH, expected_NH + offset), arithmetic]
            figures += change_figures(observed_NH - offset, expected_NH, before_NH)
        return figures

    def _before(self, site: Site) -> list[Tensor]:
        """The site's output before this swap: without rounding where that is linear."""
        linear = site.ideal(self.applied.get(site.name))
        known = [output_NH for output_NH in linear if output_NH is not None]
        return known if len(known) == len(linear) else site.expected(self.weight(site, self.applied))
