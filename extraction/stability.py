"""Stability of a direction: what other pairs would have given, and how many pairs are enough.

A mean difference is the mean of the pairs' differences; everything here is about that mean. Resampling pairs is a
matrix of weights, so a thousand resamples are one product.
"""
# N = pairs, H = hidden size, L = layers, R = resamples

from dataclasses import dataclass
from typing import Any

import numpy as np

TAIL = 0.025
RESAMPLES, SPLITS = 500, 100
SEED = 0
ENOUGH = 0.95  # cosine to the true direction


@dataclass(frozen=True)
class Stability:
    """Stability of one layer's direction. Triples are [value, 2.5 %, 97.5 %].

    split_half: cosine between the directions of two random halves, median over splits.
    bootstrap: cosine between a resample's direction and the one of all pairs.
    null: split_half with each pair's sides swapped at random.
    signal: unbiased estimate of the squared length of the true mean difference.
    noise: unbiased estimate of the trace of a pair's covariance.
    enough: pairs for a cosine of 0.95 to the true direction; None where there is no signal.
    """

    split_half: list[float]
    bootstrap: list[float]
    null: list[float]
    signal: float
    noise: float
    enough: float | None


def stability(differences_NH: np.ndarray) -> Stability:
    """Stability of one layer's direction, from its paired differences (declined minus answered)."""
    rng = np.random.default_rng(SEED)
    count = len(differences_NH)
    signal, noise = signal_and_noise(differences_NH)
    halves = split_cosines(differences_NH, count // 2, rng)
    signs_RN = rng.choice([-1.0, 1.0], (SPLITS, count))
    null = split_cosines(differences_NH, count // 2, rng, signs_RN)
    weights_RN = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    mean_H = differences_NH.mean(axis=0)
    resampled = _cosines(weights_RN @ differences_NH, mean_H[None])
    return Stability(_triple(halves), _triple(resampled), _triple(null), signal, noise, pairs_needed(signal, noise))


def signal_and_noise(differences_NH: np.ndarray) -> tuple[float, float]:
    """Unbiased ||mu||^2 and tr Cov of differences with mean mu. The squared mean alone holds tr Cov / N of noise."""
    count = len(differences_NH)
    noise = float(differences_NH.var(axis=0, ddof=1).sum())
    return float((differences_NH.mean(axis=0) ** 2).sum()) - noise / count, noise


def expected_cosine(signal: float, noise: float, count: float) -> float:
    """Cosine between the mean of `count` differences and the true mean: sqrt(s / (s + noise / count)); 0 without signal."""
    return float(np.sqrt(max(signal, 0.0) / (max(signal, 0.0) + noise / count))) if noise > 0 else 1.0


def pairs_needed(signal: float, noise: float, cosine: float = ENOUGH) -> float | None:
    """Pairs for an expected cosine of `cosine` to the true direction; None where there is no signal."""
    return None if signal <= 0 else noise / signal * cosine**2 / (1 - cosine**2)


def split_cosines(
    differences_NH: np.ndarray, count: int, rng: np.random.Generator, signs_RN: np.ndarray | None = None
) -> np.ndarray:
    """Cosines between directions of two disjoint random draws of `count` pairs each, (R,).

    signs_RN: swaps the sides of pairs first, -1 for a swap.
    """
    total = len(differences_NH)
    first_RN, second_RN = np.zeros((2, SPLITS, total))
    for row in range(SPLITS):
        order = rng.permutation(total)
        first_RN[row, order[:count]] = 1
        second_RN[row, order[count : 2 * count]] = 1
    if signs_RN is not None:
        first_RN, second_RN = first_RN * signs_RN, second_RN * signs_RN
    return _cosines(first_RN @ differences_NH, second_RN @ differences_NH)


def curve(differences_NH: np.ndarray, counts: list[int]) -> list[dict[str, Any]]:
    """For each number of pairs: cosine between two disjoint draws of as many, and the expected cosine to the true direction.

    counts: as `doubling` gives them.
    """
    rng = np.random.default_rng(SEED)
    signal, noise = signal_and_noise(differences_NH)
    return [
        {
            "pairs": count,
            "split": _triple(split_cosines(differences_NH, count, rng)),
            "expected_to_true": expected_cosine(signal, noise, count),
        }
        for count in counts
    ]


def kind_cosines(differences_NH: np.ndarray, kinds: list[str], least: int = 2) -> dict[str, dict[str, float]]:
    """For each kind of prompt with `least` pairs: cosine between its direction and the direction of all other kinds.

    `ceiling` is what that cosine would be, by the noise alone, if the kind's true direction were that of the others.
    """
    labels, found = np.array(kinds), {}
    for kind in sorted(set(kinds)):
        own = labels == kind
        if own.sum() < least or (~own).sum() < least:
            continue
        others = differences_NH[~own]
        signal, noise = signal_and_noise(others)
        ceiling = expected_cosine(signal, noise, int(own.sum())) * expected_cosine(signal, noise, len(others))
        cosine = _cosines(differences_NH[own].mean(axis=0)[None], others.mean(axis=0)[None])[0]
        found[kind] = {"pairs": int(own.sum()), "cosine": float(cosine), "ceiling": ceiling}
    return found


def doubling(total: int) -> list[int]:
    """Numbers of pairs 4, 8, 16, ... and at last half of all, for two disjoint draws."""
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
