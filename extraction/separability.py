"""Separability of declined and answered prompts along a direction: Cohen's d, AUROC and a probe's accuracy.

Takes projections and streams as arrays. The held-out split is the caller's business. Intervals draw kinds of prompts, whole:
see `extraction.kinds`.
"""
# N, M = pairs or prompts of a side, H = hidden size, R = resamples, G = kinds; ... = any leading dimensions

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extraction.kinds import TAIL, Kinds, expanded_tail

RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True)
class Separability:
    """Cohen's d and AUROC of projections, each with its 95 % interval by bootstrap over kinds: [value, low, high].

    within_auroc: AUROC of prompts of one kind against each other. NaN where no kind has both sides.
    within_kinds: the kinds that have both sides.
    """

    cohens_d: list[float]
    auroc: list[float]
    within_auroc: list[float]
    within_kinds: int


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


def separability(
    declined_N: np.ndarray,
    answered_M: np.ndarray,
    kinds: Sequence[str] | None = None,
    answered_kinds: Sequence[str] | None = None,
) -> Separability:
    """Cohen's d and AUROC of one direction's projections, with intervals by bootstrap over kinds.

    kinds: of the declined prompts, and of the answered ones where `answered_kinds` is None and the sides are of one size.
    Such sides are pairs (same place), and both prompts of a pair are drawn together. Else kinds that both sides have are
    drawn for both at once; sides without a kind in common are drawn each by itself.
    Pooled AUROC holds differences between kinds; `within_auroc` compares prompts of one kind alone.
    """
    paired = answered_kinds is None and len(declined_N) == len(answered_M)
    first, second = Kinds.of(kinds, len(declined_N)), Kinds.of(kinds if paired else answered_kinds, len(answered_M))
    weights = _paired_weights(first) if paired else _side_weights(kinds, answered_kinds, first, second)
    higher_NM, tail = _higher(declined_N, answered_M), min(first.tail, second.tail)
    value, interval, shared = _within(higher_NM, kinds, kinds if paired else answered_kinds)
    return Separability(
        _with_interval(cohens_d(declined_N, answered_M), _weighted_d(declined_N, answered_M, *weights), tail),
        _with_interval(auroc(declined_N, answered_M), _weighted_auroc(higher_NM, *weights), tail),
        [value, *interval],
        shared,
    )


def _paired_weights(kinds: Kinds) -> tuple[np.ndarray, np.ndarray]:
    weights_RN = kinds.weights(RESAMPLES, np.random.default_rng(SEED))
    return weights_RN, weights_RN


def _side_weights(
    kinds: Sequence[str] | None, answered_kinds: Sequence[str] | None, first: Kinds, second: Kinds
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of both sides, (R, N) and (R, M); only resamples with two prompts or more on each side."""
    if kinds is None or answered_kinds is None or not {*kinds} & {*answered_kinds} - {""}:
        return (
            first.weights(RESAMPLES, np.random.default_rng(SEED)),
            second.weights(RESAMPLES, np.random.default_rng(SEED + 1)),
        )
    both = Kinds.of([*kinds, *answered_kinds], len(kinds) + len(answered_kinds))
    weights_RNM = both.weights(RESAMPLES, np.random.default_rng(SEED))
    sides = weights_RNM[:, : len(kinds)], weights_RNM[:, len(kinds) :]
    enough_R = (sides[0].sum(axis=1) >= 2) & (sides[1].sum(axis=1) >= 2)
    return sides[0][enough_R], sides[1][enough_R]


def _higher(declined_N: np.ndarray, answered_M: np.ndarray) -> np.ndarray:
    """1 where a declined prompt projects higher than an answered one, half where they tie: (N, M)."""
    return (np.sign(declined_N[:, None] - answered_M[None]) + 1) / 2


def _weighted_auroc(higher_NM: np.ndarray, weights_RN: np.ndarray, weights_RM: np.ndarray) -> np.ndarray:
    return ((weights_RN @ higher_NM) * weights_RM).sum(axis=1) / (weights_RN.sum(axis=1) * weights_RM.sum(axis=1))


def _weighted_d(declined_N: np.ndarray, answered_M: np.ndarray, weights_RN: np.ndarray, weights_RM: np.ndarray) -> np.ndarray:
    first_mean, first_var = _moments(declined_N, weights_RN)
    second_mean, second_var = _moments(answered_M, weights_RM)
    spread = np.sqrt((first_var + second_var) / 2)
    return np.divide(first_mean - second_mean, spread, out=np.full(len(spread), np.nan), where=spread > 0)


def _moments(values_N: np.ndarray, weights_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased variance of values that are repeated as the weights say, (R,) each."""
    centre = values_N.mean()
    totals = weights_RN.sum(axis=1)
    means = weights_RN @ (values_N - centre) / totals
    squares = weights_RN @ (values_N - centre) ** 2
    return means + centre, np.maximum(squares - totals * means**2, 0) / (totals - 1)


def _within(
    higher_NM: np.ndarray, kinds: Sequence[str] | None, answered_kinds: Sequence[str] | None
) -> tuple[float, list[float], int]:
    """AUROC of prompts of one kind against each other, its interval over the kinds, and the kinds that have both sides."""
    if kinds is None or answered_kinds is None:
        return np.nan, [np.nan, np.nan], 0
    counts, wins = [], []
    for kind in sorted({*kinds} & {*answered_kinds} - {""}):
        own, other = (np.array([name == kind for name in names]) for names in (kinds, answered_kinds))
        part = higher_NM[np.ix_(own, other)]
        counts.append(part.size)
        wins.append(part.sum())
    if not counts:
        return np.nan, [np.nan, np.nan], 0
    counts_G, wins_G = np.array(counts), np.array(wins)
    drawn_RG = Kinds(np.arange(len(counts))).drawn(RESAMPLES, np.random.default_rng(SEED))
    shares_R = drawn_RG @ wins_G / (drawn_RG @ counts_G)
    interval = _interval(shares_R, expanded_tail(len(counts))) if len(counts) > 1 else [np.nan, np.nan]
    return float(wins_G.sum() / counts_G.sum()), interval, len(counts)


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


def probe_right(probe: tuple[Any, Any], declined_NH: np.ndarray, answered_MH: np.ndarray) -> np.ndarray:
    """Which prompts a fitted probe puts on the right side, (N + M,) of booleans, the declined first.

    probe: of `fit_probe`.
    """
    scaler, regression = probe
    sides = (regression.predict(scaler.transform(side)) for side in (declined_NH, answered_MH))
    return np.concatenate([side == label for side, label in zip(sides, (1, 0), strict=True)])


def _with_interval(value: np.ndarray, resampled_R: np.ndarray, tail: float) -> list[float]:
    return [float(value), *_interval(resampled_R, tail)]


def _interval(values_R: np.ndarray, tail: float = TAIL) -> list[float]:
    """The quantiles of the values that are known with `tail` on either side; NaN where none is."""
    known = values_R[~np.isnan(values_R)]
    return [float(value) for value in np.quantile(known, [tail, 1 - tail])] if len(known) else [np.nan, np.nan]
