"""Stability of a direction: what other pairs would have given, and how many pairs are enough.

A mean difference is the mean of the pairs' differences; everything here is about that mean. Pairs of one kind resemble each
other, so kinds are what is split, swapped and drawn. Drawing kinds is a matrix of weights on their sums, so a thousand
resamples are one product. Whether single kinds have directions of their own: `extraction.kind_directions`.
"""
# N = pairs, G = kinds, H = hidden size, R = resamples

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extraction.kinds import Kinds

TAIL = 0.025
RESAMPLES, SPLITS = 500, 100
SEED = 0
ENOUGH = 0.95  # cosine to the true direction


@dataclass(frozen=True)
class Stability:
    """Stability of one layer's direction. Triples are [value, 2.5 %, 97.5 %].

    split_half: cosine between the directions of two random halves of the kinds, median over splits.
    bootstrap: cosine between the direction of resampled kinds and the one of all pairs.
    null: split_half with each kind's sides swapped at random.
    signal: unbiased estimate of the squared length of the true mean difference.
    noise: trace of the mean's covariance times the number of pairs; with kinds it holds what a kind's pairs share.
    design_effect: `noise` over the trace of a pair's covariance; 1 where pairs of a kind are no more alike than others.
    enough: pairs for a cosine of 0.95 to the true direction, at as many a kind as here; None where there is no signal.
    kinds_enough: the same in kinds.
    """

    split_half: list[float]
    bootstrap: list[float]
    null: list[float]
    signal: float
    noise: float
    design_effect: float
    enough: float | None
    kinds_enough: float | None


def stability(differences_NH: np.ndarray, kinds: Sequence[str] | None = None) -> Stability:
    """Stability of one layer's direction, from its paired differences (declined minus answered).

    kinds: the pairs' kinds; None where each pair is its own.
    """
    rng, of_kind = np.random.default_rng(SEED), Kinds.of(kinds, len(differences_NH))
    sums_GH, count = of_kind.sums(differences_NH), of_kind.count
    signal, noise = signal_and_noise(differences_NH, kinds)
    halves = split_cosines(sums_GH, count // 2, rng)
    signs_RG = rng.choice([-1.0, 1.0], (SPLITS, count))
    null = split_cosines(sums_GH, count // 2, rng, signs_RG)
    resampled = _cosines(of_kind.drawn(RESAMPLES, rng) @ sums_GH, sums_GH.sum(axis=0)[None])
    enough = pairs_needed(signal, noise)
    kinds_enough = None if enough is None else enough * count / len(differences_NH)
    alone = float(differences_NH.var(axis=0, ddof=1).sum())
    effect = noise / alone if alone > 0 else 1.0
    return Stability(_triple(halves), _triple(resampled), _triple(null), signal, noise, effect, enough, kinds_enough)


def signal_and_noise(differences_NH: np.ndarray, kinds: Sequence[str] | None = None) -> tuple[float, float]:
    """Unbiased ||mu||^2 of differences with mean mu, and N times the trace of the mean's covariance.

    The first is of pairs of different kinds; the squared mean alone holds noise / N. Where each pair is its own kind, the
    second is the trace of a pair's covariance.
    """
    count, of_kind = len(differences_NH), Kinds.of(kinds, len(differences_NH))
    length = float((differences_NH.mean(axis=0) ** 2).sum())
    if of_kind.alone:
        noise = float(differences_NH.var(axis=0, ddof=1).sum())
        return length - noise / count, noise
    same = float((of_kind.sums(differences_NH) ** 2).sum())
    signal = (count**2 * length - same) / (count**2 - (of_kind.sizes_G**2).sum())
    return float(signal), float(count * (length - signal))


def expected_cosine(signal: float, noise: float, count: float) -> float:
    """Cosine between the mean of `count` differences and the true mean: sqrt(s / (s + noise / count)); 0 without signal."""
    return float(np.sqrt(max(signal, 0.0) / (max(signal, 0.0) + noise / count))) if noise > 0 else 1.0


def pairs_needed(signal: float, noise: float, cosine: float = ENOUGH) -> float | None:
    """Pairs for an expected cosine of `cosine` to the true direction; None where there is no signal."""
    return None if signal <= 0 else noise / signal * cosine**2 / (1 - cosine**2)


def split_cosines(sums_GH: np.ndarray, count: int, rng: np.random.Generator, signs_RG: np.ndarray | None = None) -> np.ndarray:
    """Cosines between directions of two disjoint random draws of `count` kinds each, (R,).

    sums_GH: the sum of each kind's differences.
    signs_RG: swaps the sides of kinds first, -1 for a swap.
    """
    total = len(sums_GH)
    first_RG, second_RG = np.zeros((2, SPLITS, total))
    for row in range(SPLITS):
        order = rng.permutation(total)
        first_RG[row, order[:count]] = 1
        second_RG[row, order[count : 2 * count]] = 1
    if signs_RG is not None:
        first_RG, second_RG = first_RG * signs_RG, second_RG * signs_RG
    return _cosines(first_RG @ sums_GH, second_RG @ sums_GH)


def curve(differences_NH: np.ndarray, counts: list[int], kinds: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """For each number of kinds: cosine between two disjoint draws of as many, and the expected cosine to the true direction.

    counts: numbers of kinds, as `doubling` gives them; of pairs where each pair is its own kind.
    `pairs` is the pairs that so many kinds have on average.
    """
    rng, of_kind = np.random.default_rng(SEED), Kinds.of(kinds, len(differences_NH))
    sums_GH = of_kind.sums(differences_NH)
    signal, noise = signal_and_noise(differences_NH, kinds)
    found = []
    for count in counts:
        pairs = count * len(differences_NH) / of_kind.count
        split = _triple(split_cosines(sums_GH, count, rng))
        expected = expected_cosine(signal, noise, pairs)
        found.append({"pairs": round(pairs), "kinds": count, "split": split, "expected_to_true": expected})
    return found


def doubling(total: int) -> list[int]:
    """4, 8, 16, ... and at last half of all, for two disjoint draws."""
    counts = []
    size = 4
    while size < total // 2:
        counts.append(size)
        size *= 2
    return [*counts, total // 2] if total >= 4 else []


def _cosines(first_RH: np.ndarray, second_RH: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(first_RH, axis=-1) * np.linalg.norm(second_RH, axis=-1)
    return np.divide((first_RH * second_RH).sum(axis=-1), lengths, out=np.zeros(len(first_RH)), where=lengths > 0)


def _triple(values: np.ndarray) -> list[float]:
    return [float(np.median(values)), *(float(value) for value in np.quantile(values, [TAIL, 1 - TAIL]))]
