"""Estimators by name: each turns the residual streams of declined and answered prompts into one direction.

All take one layer's streams, pair by pair, and give a unit vector that points from answered to declined.
"""
# N = pairs, H = hidden size

from __future__ import annotations  # torch is named in annotations alone: who asks for the names does not import it

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from extraction.errors import ExtractionError

if TYPE_CHECKING:
    from torch import Tensor

    Estimator = Callable[[Tensor, Tensor], Tensor]

WINSOR_QUANTILE = 0.995
TINY = sys.float_info.min  # float64's smallest normal number


def mean_difference(declined_NH: Tensor, answered_NH: Tensor) -> Tensor:
    """Mean of declined minus mean of answered (Arditi et al. 2024): (H,), at unit length."""
    return _unit(declined_NH.mean(dim=0) - answered_NH.mean(dim=0))


def projected(declined_NH: Tensor, answered_NH: Tensor) -> Tensor:
    """The mean difference without its part along the answered mean: removing it leaves that mean where it is."""
    answered_H = _unit(answered_NH.mean(dim=0))
    difference_H = declined_NH.mean(dim=0) - answered_NH.mean(dim=0)
    return _unit(difference_H - (difference_H @ answered_H) * answered_H)


def probe(declined_NH: Tensor, answered_NH: Tensor) -> Tensor:
    """A unit normal of a logistic regression's boundary between the two sides, in the stream's own units."""
    import torch

    from extraction.separability import fit_probe

    scaler, regression = fit_probe(declined_NH.numpy(), answered_NH.numpy())
    return _unit(torch.from_numpy(regression.coef_[0] / scaler.scale_))


def pca(declined_NH: Tensor, answered_NH: Tensor) -> Tensor:
    """First principal component of the pairs' differences, towards declined.

    Differences are not centred, and a pair's sign does not matter.
    """
    import torch

    differences_NH = declined_NH - answered_NH
    component_H = torch.linalg.svd(differences_NH, full_matrices=False)[2][0]
    return component_H * torch.sign(component_H @ differences_NH.mean(dim=0))


def winsorised(declined_NH: Tensor, answered_NH: Tensor) -> Tensor:
    """The mean difference with each prompt's components clipped at the 99.5 % quantile of their magnitude.

    A few components of the stream are hundreds of times the others (massive activations) and would lead the mean.
    """
    return mean_difference(_clipped(declined_NH), _clipped(answered_NH))


# The one list of them: `directions.estimator` takes these names, and `bin/extract --estimators all` compares them.
ESTIMATORS: dict[str, Estimator] = {
    "mean_difference": mean_difference,
    "projected": projected,
    "probe": probe,
    "pca": pca,
    "winsorised": winsorised,
}


def estimate(name: str, declined_LNH: Tensor, answered_LNH: Tensor) -> Tensor:
    """An estimator's unit direction of every layer, (L+1, H) float64; 0 where the two sides do not differ.

    Takes streams in any dtype, a layer at a time in float64.
    """
    if name not in ESTIMATORS:
        raise ExtractionError(f"Unknown estimator '{name}'; expected one of {', '.join(ESTIMATORS)}.")
    import torch

    rows = []
    for declined_NH, answered_NH in zip(declined_LNH, answered_LNH, strict=True):
        sides = declined_NH.double(), answered_NH.double()
        same = torch.equal(sides[0].mean(dim=0), sides[1].mean(dim=0))
        rows.append(torch.zeros(sides[0].shape[1], dtype=torch.float64) if same else ESTIMATORS[name](*sides))
    return torch.stack(rows)


def _clipped(resid_NH: Tensor) -> Tensor:
    limit_N1 = resid_NH.abs().quantile(WINSOR_QUANTILE, dim=1, keepdim=True)
    return resid_NH.clamp(-limit_N1, limit_N1)


def _unit(vector_H: Tensor) -> Tensor:
    return vector_H / vector_H.norm().clamp_min(TINY)
