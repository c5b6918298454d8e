"""Is it one direction at a layer? How many directions the declined prompts of single pairs leave their twins along.

The layers' mean differences can share a line while each pair refuses along one of several directions: the mean hides it. Then
the declined prompts spread along those directions and their answered twins do not. So, next to the mean difference, directions
are counted along which the declined spread more than the answered do, as common spatial patterns finds them (Koles 1991).
They are found on some kinds of prompts and tried on others, and p comes from swapping the sides of whole kinds.

A kind's own content, in whatever direction, adds a like share everywhere, which is subtracted. Content that varies in few
directions and among declined prompts alone counts as a direction: no activation tells it from refusal. `reverse` is the
control: what the same procedure finds with the sides exchanged.
"""
# N = pairs, G = kinds, H = hidden size, Q = components looked at, J = directions tried, R = swaps (the first swaps nothing)

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extraction.kinds import Kinds

SEED = 0
COMPONENTS = 24
MOST = 8  # directions beside the mean difference
FOLDS, REPEATS, SWAPS = 10, 2, 200
TINY = np.finfo(np.float64).tiny
LEVEL = 0.05
LEAST_PAIRS, LEAST_KINDS = 32, 16
NONE, ONE, SEVERAL, UNKNOWN = "no direction", "one direction", "more than one", "cannot tell"


@dataclass(frozen=True)
class PairRank:
    """The directions at one layer along which pairs refuse.

    answer: no direction; one direction (a second was looked for and not found); more than one; or cannot tell: too few pairs
    or kinds, or with the sides exchanged half as many are found or more, so that content alone could make them.
    directions: the mean difference and those found beside it. Weak ones are missed, so it is a lower bound.
    mean_p: p of the mean difference, from swapping the sides of whole kinds.
    p: of each further direction that was tried, in order; the count ends at the first of 0.05 or more.
    spread: along each, the variance of declined prompts over that of their twins, on kinds that did not choose it.
    usual: the same ratio in all other directions.
    reverse: directions that are found with the sides exchanged.
    """

    answer: str
    directions: int
    mean_p: float
    p: list[float]
    spread: list[float]
    usual: float
    reverse: int


@dataclass(frozen=True)
class _Fold:
    """One split of the kinds: each kind's excess of declined over answered and the sum of both, in whitened coordinates."""

    excess_GQQ: np.ndarray
    total_GQQ: np.ndarray
    held_G: np.ndarray


@dataclass(frozen=True)
class _Tried:
    p: list[float]
    spread: list[float]
    reverse_p: list[float]


def pair_rank(declined_NH: np.ndarray, answered_NH: np.ndarray, kinds: Sequence[str] | None = None) -> PairRank:
    """The number of directions at one layer, from both sides' residual streams, row i of each from pair i, in float64.

    kinds: the pairs' kinds; None where each pair is its own.
    """
    of_kind = Kinds.of(kinds, len(declined_NH))
    mean_p = _mean_p(of_kind.sums(declined_NH - answered_NH))
    if len(declined_NH) < LEAST_PAIRS or of_kind.count < LEAST_KINDS:
        return PairRank(UNKNOWN, 0, mean_p, [], [], float("nan"), 0)
    folds = list(_folds(declined_NH, answered_NH, of_kind))
    if not folds:
        return PairRank(NONE, 0, mean_p, [], [], float("nan"), 0)
    signs_RG = np.random.default_rng(SEED).choice([-1.0, 1.0], (SWAPS + 1, of_kind.count))
    signs_RG[0] = 1
    tried = _tried(folds, signs_RG)
    further, usual = _first_failure(tried.p), _ratio(*(sum(map(np.sum, part)) for part in zip(*map(_traces, folds), strict=True)))
    reverse = _first_failure(tried.reverse_p)
    answer = NONE if mean_p >= LEVEL else _answer(further, reverse)
    count = 0 if answer == NONE else 1 + further
    return PairRank(answer, count, mean_p, tried.p, tried.spread, float(usual), reverse)


def _answer(further: int, reverse: int) -> str:
    """More than one only where the answered do not spread more than the declined in half as many directions."""
    if not further:
        return ONE
    return SEVERAL if further > 2 * reverse else UNKNOWN


def _mean_p(sums_GH: np.ndarray) -> float:
    """Share of swaps of kinds' sides whose mean difference is as long as the true one."""
    signs_RG = np.random.default_rng(SEED).choice([-1.0, 1.0], (1000, len(sums_GH)))
    lengths_R = ((signs_RG @ sums_GH) ** 2).sum(axis=1)
    return float((1 + np.sum(lengths_R >= (sums_GH.sum(axis=0) ** 2).sum() * (1 - 1e-12))) / (1 + len(signs_RG)))


def _folds(declined_NH: np.ndarray, answered_NH: np.ndarray, of_kind: Kinds) -> Iterator[_Fold]:
    """Splits of the kinds into those that choose directions and those that try them, several times over."""
    rng, num_folds = np.random.default_rng(SEED), min(FOLDS, of_kind.count)
    for _ in range(REPEATS):
        fold_G = rng.permutation(of_kind.count) % num_folds
        for number in range(num_folds):
            held_G = fold_G == number
            sides = _whitened(declined_NH, answered_NH, ~held_G[of_kind.codes_N])
            if sides is None:
                continue
            outer_NQQ, other_NQQ = (side_NQ[:, :, None] * side_NQ[:, None, :] for side_NQ in sides)
            yield _Fold(of_kind.sums(outer_NQQ - other_NQQ), of_kind.sums(outer_NQQ + other_NQQ), held_G)


def _whitened(declined_NH: np.ndarray, answered_NH: np.ndarray, chosen_N: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Both sides without their means and the mean difference's direction, in the leading components of the pairs' differences.

    Means, components and scales are of the chosen pairs. The scale is such that both sides together have variance 1. None
    where the chosen pairs do not differ.
    """
    means_H = declined_NH[chosen_N].mean(axis=0), answered_NH[chosen_N].mean(axis=0)
    along_H = means_H[0] - means_H[1]
    if not (length := float(np.linalg.norm(along_H))):
        return None
    along_H = along_H / length
    sides = []
    for side_NH, mean_H in zip((declined_NH, answered_NH), means_H, strict=True):
        centred_NH = side_NH - mean_H
        sides.append(centred_NH - np.outer(centred_NH @ along_H, along_H))
    count = int(chosen_N.sum())
    basis_QH = _leading((sides[0] - sides[1])[chosen_N], min(COMPONENTS, count // 4))
    both_NQ = [side_NH @ basis_QH.T for side_NH in sides]
    pooled_QQ = sum(side_NQ[chosen_N].T @ side_NQ[chosen_N] for side_NQ in both_NQ) / (2 * count)
    values_Q, vectors_QQ = np.linalg.eigh(pooled_QQ)
    kept_Q = values_Q > 1e-10 * values_Q[-1]
    scale_QQ = vectors_QQ[:, kept_Q] / np.sqrt(values_Q[kept_Q])
    return both_NQ[0] @ scale_QQ, both_NQ[1] @ scale_QQ


def _leading(differences_NH: np.ndarray, size: int) -> np.ndarray:
    """Right singular vectors of the largest singular values, (Q, H), by the smaller of both Gram matrices."""
    if differences_NH.shape[0] >= differences_NH.shape[1]:
        return np.linalg.eigh(differences_NH.T @ differences_NH)[1][:, ::-1][:, :size].T
    left_NQ = np.linalg.eigh(differences_NH @ differences_NH.T)[1][:, ::-1][:, :size]
    rows_QH = left_NQ.T @ differences_NH
    return rows_QH / np.maximum(np.linalg.norm(rows_QH, axis=1, keepdims=True), TINY)


def _tried(folds: Sequence[_Fold], signs_RG: np.ndarray) -> _Tried:
    """Directions that some kinds chose, on the others, with the sides as they are and exchanged; p over all that are tried."""
    tried = min(MOST, min(fold.excess_GQQ.shape[1] for fold in folds) // 2)
    scores_RGJ, sums_2J = np.zeros((*signs_RG.shape, 2 * tried)), np.zeros((2, 2 * tried))
    for fold in folds:
        directions_RQJ = _chosen(fold, signs_RG, tried)
        top_RQJ, bottom_RQJ = directions_RQJ[:, :, :tried], directions_RQJ[:, :, tried:]
        along = [_along(_beyond(fold, fold.held_G), top_RQJ), _along(_beyond(fold, fold.held_G, top_RQJ[0]), bottom_RQJ)]
        scores_RGJ[:, fold.held_G] += np.concatenate(along, axis=2) * signs_RG[:, fold.held_G, None]
        for row, part_GQQ in enumerate((fold.excess_GQQ, fold.total_GQQ)):
            sums_2J[row] += ((part_GQQ[fold.held_G].sum(axis=0) @ directions_RQJ[0]) * directions_RQJ[0]).sum(axis=0)
    t_RJ = scores_RGJ.mean(axis=1) / np.maximum(scores_RGJ.std(axis=1), TINY)
    forward_p, reverse_p = _p_values(t_RJ[:, :tried]), _p_values(-t_RJ[:, tried:])
    return _Tried(forward_p, _ratio(*sums_2J)[:tried].tolist(), reverse_p)


def _chosen(fold: _Fold, signs_RG: np.ndarray, tried: int) -> np.ndarray:
    """Directions along which the choosing kinds' declined spread most, then those along which they spread least, (R, Q, 2J)."""
    chosen_RQQ = np.tensordot(signs_RG[:, ~fold.held_G], _beyond(fold, ~fold.held_G), axes=1)
    vectors_RQQ = np.linalg.eigh(chosen_RQQ)[1]
    return np.concatenate([vectors_RQQ[:, :, ::-1][:, :, :tried], vectors_RQQ[:, :, :tried]], axis=2)


def _p_values(t_RJ: np.ndarray) -> list[float]:
    """Share of swaps in which the best of all directions does as well as each does with the true sides."""
    best_R = t_RJ[1:].max(axis=1, keepdims=True)
    return [float(p) for p in (1 + (best_R >= t_RJ[0]).sum(axis=0)) / len(t_RJ)]


def _traces(fold: _Fold) -> tuple[np.ndarray, np.ndarray]:
    held = fold.held_G
    return np.trace(fold.excess_GQQ[held], axis1=1, axis2=2), np.trace(fold.total_GQQ[held], axis1=1, axis2=2)


def _ratio(excess: Any, total: Any) -> Any:
    """Variance of the declined over the answered's, from their difference and their sum."""
    return (total + excess) / np.maximum(total - excess, TINY)


def _along(parts_GQQ: np.ndarray, directions_RQJ: np.ndarray) -> np.ndarray:
    """Each kind's part along each direction, (R, G, J)."""
    return np.stack([(np.matmul(part_QQ, directions_RQJ) * directions_RQJ).sum(axis=1) for part_QQ in parts_GQQ], axis=1)


def _beyond(fold: _Fold, chosen_G: np.ndarray, without_QJ: np.ndarray | None = None) -> np.ndarray:
    """The chosen kinds' excess less its usual share of the total, which is the same in every direction.

    The share is of the chosen kinds alone: components are of those that choose, whose own content fills them. `without_QJ` are
    orthonormal directions that it leaves out.
    """
    excess_GQQ, total_GQQ = fold.excess_GQQ[chosen_G], fold.total_GQQ[chosen_G]
    sums = [part_GQQ.sum(axis=0) for part_GQQ in (excess_GQQ, total_GQQ)]
    left_out = [0.0 if without_QJ is None else np.trace(without_QJ.T @ sum_QQ @ without_QJ) for sum_QQ in sums]
    usual = (np.trace(sums[0]) - left_out[0]) / (np.trace(sums[1]) - left_out[1])
    return excess_GQQ - usual * total_GQQ


def _first_failure(p: Sequence[float]) -> int:
    return next((place for place, value in enumerate(p) if value >= LEVEL), len(p))
