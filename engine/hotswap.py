"""Exchanges a loaded vLLM model's o_proj and down_proj for a variant's, in place, and proves that it took.

W0 always comes from the base checkpoint, never from the weights in the engine, so base -> variant -> base is exact. A
plain class on a torch module; engine.worker puts it into vLLM's workers.
"""
# H = hidden size, I = this worker's share of the input size, K = directions, P = probe vectors

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editing.apply import edit_of
from editing.checkpoint import Checkpoint
from editing.plan import EditPlan, PlannedTensor
from editing.projection import Edit, check_edit, project_out
from engine.errors import EngineError

NUM_PROBES = 8
# Largest ||y - expected|| / ||expected|| of a layer that is right: rounding of the weights and of the output.
PROBE_TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 5e-3, torch.float32: 1e-3}
# How far the share of the expected change may be from 1; the old weights give 0, the base between two edits about 1/2.
CHANGE_TOLERANCE = 0.25


class SwapFailed(EngineError):
    """The weights in the engine are not the variant's; nothing may be generated until a swap succeeds."""


Edits = Mapping[str, Edit]  # by tensor name; a tensor that is not in it has the base's weights


@dataclass(frozen=True)
class Site:
    """One linear layer that a swap exchanges: its tensor, the module, and this worker's columns of the (H, I) matrix."""

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
        self.applied: Edits = {}
        self._base: dict[str, Tensor] = {}
        self.sites = [self._site(model, tensor) for tensor in plan.edited]

    def edits(self, basis_HK: Tensor, alphas: Mapping[str, float], *, keep_norms: bool = False) -> Edits:
        """Each named tensor's own edit: its alpha, and the basis behind the norm that may follow it."""
        tensors = {site.name: site.tensor for site in self.sites}
        if unknown := sorted(set(alphas) - set(tensors)):
            raise EngineError(f"{unknown[0]} cannot be swapped in a running engine. Write the variant with bin/edit.")
        edits = {name: Edit(basis_HK, alpha, keep_norms) for name, alpha in alphas.items()}
        for edit in edits.values():
            check_edit(edit, self.checkpoint.hidden_size)
        return {name: edit_of(self.checkpoint, tensors[name], edit) for name, edit in edits.items()}

    def swap(self, edits: Edits) -> float:
        """Load the variant's weights ({}: the base's) and probe every layer.

        Returns the largest relative probe error. Raises SwapFailed, naming the layer, where the engine's output is not
        the variant's.
        """
        for site in self.sites:
            edit = edits.get(site.name)
            self._load(site, self.base_weight(site) if edit is None else project_out(self.base_weight(site), edit))
        worst = self.probe(edits)
        self.applied = edits
        return worst

    def probe(self, edits: Edits) -> float:
        """Push fixed random vectors through every layer and compare with (W0 - alpha Q Q^T W0) x.

        Two checks a layer: the error as a whole, and how much of the change since the last good swap is there; a stale
        rank-1 edit is only about 1.8 % of the output at H = 3072, but all of that change.
        """
        return max(self._probe_site(site, edits) for site in self.sites)

    def base_weight(self, site: Site) -> Tensor:
        """This worker's part of W0, (H, I), on the model's device."""
        return self._base[site.name]

    def _probe_site(self, site: Site, edits: Edits) -> float:
        expected_PH = self._expected(site, edits)
        observed_PH = _apply(site.module, site.probe_PI)
        error = float((observed_PH - expected_PH).norm() / expected_PH.norm())
        tolerance = PROBE_TOLERANCE[site.probe_PI.dtype]
        if not error <= tolerance:
            raise SwapFailed(f"{site.name}: the engine's output is off by {error:.1%} after the swap (at most {tolerance:.1%}).")
        share = _share_of_change(observed_PH, expected_PH, self._expected(site, self.applied), tolerance)
        if share is not None and not abs(share - 1) <= CHANGE_TOLERANCE:
            raise SwapFailed(f"{site.name}: {share:.0%} of the expected change arrived (100% +- {CHANGE_TOLERANCE:.0%}).")
        return error

    def _expected(self, site: Site, edits: Edits) -> Tensor:
        edit = edits.get(site.name)
        if edit is not None and edit.keep_norms:  # each column has its own factor, so the base's output does not tell
            weight_HI = project_out(self.base_weight(site), edit)
            return (site.probe_PI.float() @ weight_HI.float().T).to(torch.float64)
        return _edited_output(site.base_output_PH, edit)

    def _site(self, model: nn.Module, tensor: PlannedTensor) -> Site:
        module = _linear(model, tensor.name.removesuffix(".weight"))
        width = module.input_size_per_partition
        columns = slice(module.tp_rank * width, (module.tp_rank + 1) * width)
        device = next(model.parameters()).device
        base_HI = _matrix(self.checkpoint, tensor)[:, columns]
        self._base[tensor.name] = base_HI.to(device)
        generator = torch.Generator().manual_seed(sum(tensor.name.encode()))
        probe_PI = torch.randn(NUM_PROBES, width, generator=generator).to(module.params_dtype)
        base_output_PH = probe_PI.float() @ base_HI.to(module.params_dtype).float().T
        return Site(tensor, module, columns, probe_PI.to(device), base_output_PH.to(device, torch.float64))

    def _load(self, site: Site, weight_HI: Tensor) -> None:
        weight_HI = weight_HI.to(site.probe_PI.dtype)
        if self.repacks:
            # vLLM's CPU backend packed the weight away at load: a copy into it would change nothing and say nothing.
            site.module.weight = nn.Parameter(weight_HI.contiguous(), requires_grad=False)
            site.module.quant_method.process_weights_after_loading(site.module)
        else:
            # In place: CUDA graphs hold the parameter's address.
            site.module.weight.data.copy_(weight_HI)


def _matrix(checkpoint: Checkpoint, tensor: PlannedTensor) -> Tensor:
    weight = checkpoint.read(tensor.name)
    return weight if tensor.axis == 0 else weight.T  # Conv1D is stored (input, hidden); vLLM turns it round


def _linear(model: nn.Module, name: str) -> Any:
    from vllm.model_executor.layers.linear import RowParallelLinear, UnquantizedLinearMethod

    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise EngineError(f"vLLM's {type(model).__name__} has no module {name}, so it cannot be swapped. Use bin/edit.") from None
    if type(module) is not RowParallelLinear:
        raise EngineError(
            f"{name} is a {type(module).__name__}; a hot swap takes RowParallelLinear (no LoRA, no pipeline parallelism)."
        )
    if type(module.quant_method) is not UnquantizedLinearMethod:
        raise EngineError(f"{name} is quantised ({type(module.quant_method).__name__}); a hot swap takes unquantised weights.")
    return module


def _apply(module: Any, probe_PI: Tensor) -> Tensor:
    with torch.inference_mode():
        return module.quant_method.apply(module, probe_PI).to(torch.float64)


def _edited_output(base_output_PH: Tensor, edit: Edit | None) -> Tensor:
    if edit is None:
        return base_output_PH
    basis_HK = edit.basis_HK.to(base_output_PH.device)
    return base_output_PH - edit.alpha * (base_output_PH @ basis_HK) @ basis_HK.T


def _share_of_change(observed_PH: Tensor, expected_PH: Tensor, before_PH: Tensor, tolerance: float) -> float | None:
    """<observed - before, expected - before> / ||expected - before||^2; None where the change drowns in rounding."""
    change_PH = expected_PH - before_PH
    noise = tolerance * float(expected_PH.norm()) / expected_PH.numel() ** 0.5  # of one component, at the tolerance
    if float(change_PH.norm()) <= 8 * noise:
        return None
    return float(((observed_PH - before_PH) * change_PH).sum() / change_PH.square().sum())
