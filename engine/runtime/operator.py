"""The operator: every token's vector is changed in place by what its request's slot holds for a site.

    y <- y + sum_k (c_k - a_k <q_k, y + r>) q_k        over the slot's rows q_k, as many as its rank at the site

Shares a = alpha and offsets c = 0 on an orthonormal basis remove a subspace: y - alpha Q Q^T (y + r). Shares 0 and an
offset c add c q. The residual r is what a block adds to its input before it reads it; without one r = 0.

`torch.ops.refusal.intervene` is a custom operator with a shape function, so torch.compile and CUDA graphs take it as one
node. It reads its tables at fixed addresses and allocates nothing on a GPU. Nothing here knows vLLM, requests or variants.
"""
# T = tokens, H = hidden size, S = slots (0 is nothing), N = sites, K = rows of a slot at most; M = N, or 1 where sites share rows

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

SCHEMA = (
    "intervene(Tensor(a!) hidden_TH, Tensor? residual_TH, Tensor rows_SMKH, Tensor shares_SNK, Tensor offsets_SNK, "
    "Tensor ranks_SN, Tensor slots_T, int site) -> ()"
)
LEAST_RUN = 8  # tokens: in longer runs of one slot, in a pass's mean, each has its own matrix products on the CPU

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
    """The operator with torch's own products, in float32."""
    # numpy for the few numbers that decide what is done: a call of torch's costs as much as the arithmetic of a short pass
    given_T = slots_T.numpy()[: len(hidden_TH)]
    ranks_T = ranks_SN.numpy()[given_T, site]
    if not ranks_T.any():
        return
    rank = int(ranks_T.max())
    tables = (rows_SMKH[:, site if rows_SMKH.shape[1] > 1 else 0, :rank], shares_SNK[:, site, :rank], offsets_SNK[:, site, :rank])
    acting_T = np.where(ranks_T > 0, given_T, 0)
    edges = [0, *(np.flatnonzero(np.diff(acting_T)) + 1).tolist(), len(acting_T)]
    if len(acting_T) < LEAST_RUN * (len(edges) - 2):
        _scattered(hidden_TH, residual_TH, tables, acting_T)
        return
    for start, end in pairwise(edges):
        if slot := int(acting_T[start]):
            own = (table[slot] for table in tables)
            _run_of(hidden_TH[start:end], None if residual_TH is None else residual_TH[start:end], *own)


def _run_of(hidden_TH: Tensor, residual_TH: Tensor | None, rows_KH: Tensor, shares_K: Tensor, offsets_K: Tensor) -> None:
    """Neighbouring tokens of one slot: two matrix products, in place where the vectors are float32."""
    y_TH = hidden_TH.float()
    x_TH = y_TH if residual_TH is None else y_TH + residual_TH
    y_TH.addmm_(offsets_K - shares_K * (x_TH @ rows_KH.T), rows_KH)
    if y_TH is not hidden_TH:
        hidden_TH.copy_(y_TH)


def _scattered(hidden_TH: Tensor, residual_TH: Tensor | None, tables: tuple[Tensor, ...], acting_T: np.ndarray) -> None:
    """Tokens of many slots by turns, as when each request makes one: each gets its own rows, one row of all at a time."""
    places_T = torch.from_numpy(acting_T.nonzero()[0])
    slots_T = torch.from_numpy(acting_T).index_select(0, places_T)
    y_TH = hidden_TH.index_select(0, places_T).float()
    x_TH = y_TH.clone() if residual_TH is None else y_TH + residual_TH.index_select(0, places_T)
    rows_SKH, shares_SK, offsets_SK = tables
    for k in range(rows_SKH.shape[1]):
        rows_TH = rows_SKH[:, k].index_select(0, slots_T)
        coefficients_T = offsets_SK[:, k][slots_T] - shares_SK[:, k][slots_T] * (x_TH * rows_TH).sum(-1)
        y_TH.addcmul_(coefficients_T[:, None], rows_TH)
    hidden_TH.index_copy_(0, places_T, y_TH.to(hidden_TH.dtype))


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
