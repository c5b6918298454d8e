"""The operator: every token's vector is changed in place by what its request's slot holds for a site.

    y <- y + sum_k (c_k - a_k <q_k, y + r>) q_k        over the slot's rows q_k, as many as its rank at the site

Shares a = alpha and offsets c = 0 on an orthonormal basis remove a subspace: y - alpha Q Q^T (y + r). Shares 0 and an
offset c add c q. The residual r is what a block adds to its input before it reads it; without one r = 0.

`torch.ops.refusal.intervene` is a custom operator with a shape function, so torch.compile and CUDA graphs take it as one
node. It reads its tables at fixed addresses and allocates nothing on a GPU. Nothing here knows vLLM, requests or variants.
"""
# T = tokens, H = hidden size, S = slots (0 is nothing), N = sites, K = rows of a slot at most; M = N, or 1 where sites share rows

import torch
from torch import Tensor

SCHEMA = (
    "intervene(Tensor(a!) hidden_TH, Tensor? residual_TH, Tensor rows_SMKH, Tensor shares_SNK, Tensor offsets_SNK, "
    "Tensor ranks_SN, Tensor slots_T, int site) -> ()"
)
FEW_SLOTS = 4  # up to so many variants of a pass take a matrix product each; more are gathered row by row
GATHERED = 1 << 22  # numbers that a gather may hold at a time on the CPU

_library = torch.library.Library("refusal", "FRAGMENT")  # kept: its operators end with it


def intervene_on_cpu(
    hidden_TH: Tensor,
    residual_TH: Tensor | None,
    rows_SMKH: Tensor,
    shares_SNK: Tensor,
    offsets_SNK: Tensor,
    ranks_SN: Tensor,
    slots_T: Tensor,
    site: int,
) -> None:
    """The operator with torch's own products, in float32 or the rows' type."""
    slots_T = slots_T[: len(hidden_TH)].long()
    ranks_T = ranks_SN[slots_T, site]
    rank = int(ranks_T.max()) if len(ranks_T) else 0
    if rank == 0:
        return
    rows_SKH = rows_SMKH[:, site if rows_SMKH.shape[1] > 1 else 0, :rank]
    weights = (shares_SNK[:, site, :rank], offsets_SNK[:, site, :rank])
    present = slots_T[ranks_T > 0].unique().tolist()
    if len(present) > FEW_SLOTS:
        _gathered(hidden_TH, residual_TH, rows_SKH, weights, slots_T)
        return
    for slot in present:
        places_T = None if len(present) == 1 and bool((slots_T == slot).all()) else (slots_T == slot).nonzero()[:, 0]
        _one_slot(hidden_TH, residual_TH, rows_SKH[slot], (weights[0][slot], weights[1][slot]), places_T)


def _one_slot(
    hidden_TH: Tensor, residual_TH: Tensor | None, rows_KH: Tensor, weights: tuple[Tensor, Tensor], places_T: Tensor | None
) -> None:
    """Tokens that share a slot: two matrix products. places_T: which tokens; None for all."""
    hidden = hidden_TH if places_T is None else hidden_TH[places_T]
    y_TH = hidden.to(rows_KH.dtype)
    shares_K, offsets_K = weights
    x_TH = y_TH if residual_TH is None else y_TH + (residual_TH if places_T is None else residual_TH[places_T])
    coefficients_TK = offsets_K - shares_K * (x_TH @ rows_KH.T)
    changed_TH = torch.addmm(y_TH, coefficients_TK, rows_KH).to(hidden_TH.dtype)
    if places_T is None:
        hidden_TH.copy_(changed_TH)
    else:
        hidden_TH[places_T] = changed_TH


def _gathered(
    hidden_TH: Tensor, residual_TH: Tensor | None, rows_SKH: Tensor, weights: tuple[Tensor, Tensor], slots_T: Tensor
) -> None:
    """Tokens of many slots: each gets its own rows, some tokens at a time so that the gather stays small."""
    shares_SK, offsets_SK = weights
    step = max(1, GATHERED // rows_SKH[0].numel())
    for start in range(0, len(hidden_TH), step):
        part = slice(start, start + step)
        slots, y_TH = slots_T[part], hidden_TH[part].to(rows_SKH.dtype)
        x_TH = y_TH if residual_TH is None else y_TH + residual_TH[part]
        rows_TKH = rows_SKH[slots]
        coefficients_TK = offsets_SK[slots] - shares_SK[slots] * torch.bmm(rows_TKH, x_TH[:, :, None])[:, :, 0]
        changed_TH = torch.baddbmm(y_TH[:, None], coefficients_TK[:, None], rows_TKH)[:, 0].to(hidden_TH.dtype)
        hidden_TH[part] = torch.where((slots > 0)[:, None], changed_TH, hidden_TH[part])


def intervene_on_cuda(
    hidden_TH: Tensor,
    residual_TH: Tensor | None,
    rows_SMKH: Tensor,
    shares_SNK: Tensor,
    offsets_SNK: Tensor,
    ranks_SN: Tensor,
    slots_T: Tensor,
    site: int,
) -> None:
    """The operator as one Triton kernel, which is imported with the first call."""
    from engine.runtime.kernel import launch

    launch(hidden_TH, residual_TH, rows_SMKH, shares_SNK, offsets_SNK, ranks_SN, slots_T, site)


def _shapes(
    hidden_TH: Tensor,
    residual_TH: Tensor | None,
    rows_SMKH: Tensor,
    shares_SNK: Tensor,
    offsets_SNK: Tensor,
    ranks_SN: Tensor,
    slots_T: Tensor,
    site: int,
) -> None:
    """What a tracer sees: the operator returns nothing."""


_library.define(SCHEMA)
_library.impl("intervene", intervene_on_cpu, "CPU")
_library.impl("intervene", intervene_on_cuda, "CUDA")
torch.library.register_fake("refusal::intervene", _shapes, lib=_library)

intervene = torch.ops.refusal.intervene
