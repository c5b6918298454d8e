"""Separability of declined and answered prompts along a direction: Cohen's d, AUROC and a probe's accuracy.

Takes projections and streams as arrays. The held-out split is the caller's business.
"""
# N = pairs, H = hidden size, R = resamples; ... = any leading dimensions

from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000
TAIL = 0.025  # on either side of a 95 % interval
SEED = 0


@dataclass(frozen=True)
class Separability:
    """Cohen's d and AUROC of projections, each with its 95 % interval by bootstrap over pairs: [value, low, high]."""

    cohens_d: list[float]
    auroc: list[float]


def cohens_d(declined_N: np.ndarray, answered_N: np.ndarray) -> np.ndarray:
    """(mean declined - mean answered) / sqrt((var declined + var answered) / 2), over the last axis; unbiased variances.

    Cohen (1988), the pooled form for groups of one size, as the study. NaN where neither side varies.
    """
    spread = np.sqrt((declined_N.var(axis=-1, ddof=1) + answered_N.var(axis=-1, ddof=1)) / 2)
    difference = declined_N.mean(axis=-1) - answered_N.mean(axis=-1)
    return np.divide(difference, spread, out=np.full(np.shape(difference), np.nan), where=spread > 0)


def auroc(declined_N: np.ndarray, answered_N: np.ndarray) -> np.ndarray:
    """Probability that a declined prompt projects higher than an answered one, ties as half, over the last axis.

    The Mann-Whitney U statistic over the product of the group sizes.
    """
    from scipy.stats import rankdata

    count, other = declined_N.shape[-1], answered_N.shape[-1]
    ranks = rankdata(np.concatenate([declined_N, answered_N], axis=-1), axis=-1)[..., :count]
    return (ranks.sum(axis=-1) - count * (count + 1) / 2) / (count * other)


def separability(declined_N: np.ndarray, answered_N: np.ndarray) -> Separability:
    """Cohen's d and AUROC of one direction's projections, with intervals by bootstrap.

    Pairs (same place) are resampled together. Groups of unequal size are not pairs, and each is resampled by itself.
    """
    index_RN = np.random.default_rng(SEED).integers(0, len(declined_N), (RESAMPLES, len(declined_N)))
    paired = len(declined_N) == len(answered_N)
    other_RN = index_RN
    if not paired:
        other_RN = np.random.default_rng(SEED + 1).integers(0, len(answered_N), (RESAMPLES, len(answered_N)))
    resampled = declined_N[index_RN], answered_N[other_RN]
    return Separability(
        _with_interval(cohens_d(declined_N, answered_N), cohens_d(*resampled)),
        _with_interval(auroc(declined_N, answered_N), auroc(*resampled)),
    )


def null_band(declined_RN: np.ndarray, answered_RN: np.ndarray) -> dict[str, list[float]]:
    """2.5 % and 97.5 % quantiles of d and AUROC over R directions that mean nothing."""
    found = {"cohens_d": cohens_d(declined_RN, answered_RN), "auroc": auroc(declined_RN, answered_RN)}
    return {name: _interval(values) for name, values in found.items()}


def fit_probe(declined_NH: np.ndarray, answered_NH: np.ndarray) -> tuple[Any, Any]:
    """A standardiser and an L2 logistic regression (C = 1), fitted on both sides; class 1 is declined."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([declined_NH, answered_NH])
    labels = np.repeat([1, 0], [len(declined_NH), len(answered_NH)])
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(max_iter=2000).fit(scaler.transform(features), labels)
    return scaler, regression


def probe_counts(probe: tuple[Any, Any], declined_NH: np.ndarray, answered_NH: np.ndarray) -> tuple[int, int]:
    """The number of prompts that a fitted probe puts on the right side, and the number of all.

    probe: of `fit_probe`.
    """
    scaler, regression = probe
    right = (regression.predict(scaler.transform(declined_NH)) == 1).sum() + (
        regression.predict(scaler.transform(answered_NH)) == 0
    ).sum()
    return int(right), len(declined_NH) + len(answered_NH)


def _with_interval(value: np.ndarray, resampled_R: np.ndarray) -> list[float]:
    return [float(value), *_interval(resampled_R)]


def _interval(values_R: np.ndarray) -> list[float]:
    """2.5 % and 97.5 % quantiles of the values that are known; NaN where none is."""
    known = values_R[~np.isnan(values_R)]
    return [float(value) for value in np.quantile(known, [TAIL, 1 - TAIL])] if len(known) else [np.nan, np.nan]
