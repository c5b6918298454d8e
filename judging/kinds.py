"""The kind as the unit: prompts of one kind (category) resemble each other, so they are not so many independent ones.

Everything here takes values of prompts and the kinds of the prompts. A prompt of an empty kind is a kind of its own.
"""
# N = prompts, G = kinds, S = sums that a permutation can give

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEW = 8  # kinds, below which no interval over kinds is to be relied on
FLIPS = 20_000  # permutations drawn where the sums are too many to count
GRID = 720  # grades and means of two, three or four repeats are whole multiples of 1/720
MOST_SUMS = 4_000_000
BATCH = 500
SEED = 0


def kind_codes(kinds: Sequence[str] | None, count: int) -> np.ndarray:
    """A number for each prompt's kind, (N,); prompts without one, and all where `kinds` is None, have a number each."""
    if kinds is None:
        return np.arange(count)
    names = [(kind, -1) if kind else ("", place) for place, kind in enumerate(kinds)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def sums_by_kind(values_N: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
    """The sum over each kind's prompts, (G,)."""
    return np.bincount(codes_N, weights=values_N)


def covariance(first_N: np.ndarray, second_N: np.ndarray, codes_N: np.ndarray) -> float:
    """Covariance of two figures from their influence values, each kind one draw.

    The influence of a prompt is the derivative of the figure by its weight; a mean's is (value - mean) / N. The sum over kinds
    is scaled by G / (G - 1): the linearised variance of a ratio over clusters (Cochran 1977, 6.9). 0 with one kind.
    """
    sums_G, others_G = sums_by_kind(first_N, codes_N), sums_by_kind(second_N, codes_N)
    count = len(sums_G)
    return float((sums_G * others_G).sum() * count / (count - 1)) if count > 1 else 0.0


@dataclass(frozen=True)
class Components:
    """The variance of values between kinds and within them."""

    between: float
    within: float

    @property
    def share_between(self) -> float | None:
        """The intra-class correlation; None where all values are equal."""
        total = self.between + self.within
        return self.between / total if total > 0 else None


def components(values: Sequence[float], kinds: Sequence[str] | None) -> Components | None:
    """Variance between and within kinds, by the one-way analysis of variance (Donner 1986); between them from 0.

    None where no kind has two values, or there is one kind alone.
    """
    values_N, codes_N = np.asarray(values, dtype=float), kind_codes(kinds, len(values))
    sizes_G = np.bincount(codes_N) if len(values_N) else np.zeros(0)
    total, groups = len(values_N), len(sizes_G)
    if groups < 2 or groups == total:
        return None
    means_G = sums_by_kind(values_N, codes_N) / sizes_G
    between = float((sizes_G * (means_G - values_N.mean()) ** 2).sum() / (groups - 1))
    within = float(((values_N - means_G[codes_N]) ** 2).sum() / (total - groups))
    size = (total - float((sizes_G**2).sum()) / total) / (groups - 1)
    return Components(max(0.0, (between - within) / size), within)


def icc(values: Sequence[float], kinds: Sequence[str] | None) -> float | None:
    """Intra-class correlation of values within kinds, from 0. None as for `components`, and where all values are equal."""
    if not len(values) or np.ptp(np.asarray(values, dtype=float)) == 0:
        return None
    found = components(values, kinds)
    return None if found is None else found.share_between


def effective_n(values: Sequence[float], kinds: Sequence[str] | None) -> float | None:
    """How many independent prompts give a mean of the same variance: N over the design effect. None where all are equal."""
    values_N, codes_N = np.asarray(values, dtype=float), kind_codes(kinds, len(values))
    if len(values_N) < 2 or np.ptp(values_N) == 0:
        return None
    influence_N = (values_N - values_N.mean()) / len(values_N)
    variance = covariance(influence_N, influence_N, codes_N)
    return float(values_N.var(ddof=1) / variance) if variance > 0 else None


def sign_flip_p(differences: Sequence[float], kinds: Sequence[str] | None) -> float:
    """Two-sided p of a mean difference of 0: each kind's differences keep their sign or change it, all of a kind together.

    Exact where the kinds' sums are multiples of 1/720 and few enough to count (every grade, and means of repeats), otherwise
    from 20,000 draws with a fixed seed. 1 where nothing differs.
    """
    values_N = np.asarray(differences, dtype=float)
    if not len(values_N):
        return 1.0
    sums_G = np.abs(sums_by_kind(values_N, kind_codes(kinds, len(values_N))))
    signed = abs(float(values_N.sum()))
    steps_G = np.rint(sums_G * GRID).astype(np.int64)
    divisor = int(np.gcd.reduce(steps_G)) or 1
    whole = np.allclose(sums_G * GRID, steps_G, atol=1e-6)
    if whole and int(steps_G.sum()) // divisor <= MOST_SUMS // max(len(steps_G), 1):
        return _counted(steps_G // divisor, round(signed * GRID) // divisor)
    return _drawn(sums_G, signed)


def _counted(steps_G: np.ndarray, observed: int) -> float:
    """Share of all sign changes whose sum is as far from 0, by convolution over the kinds."""
    total = int(steps_G.sum())
    shares_S = np.zeros(2 * total + 1)
    shares_S[total] = 1.0
    for step in steps_G[steps_G > 0]:
        moved_S = np.zeros_like(shares_S)
        moved_S[step:] += shares_S[: len(shares_S) - step] / 2
        moved_S[: len(shares_S) - step] += shares_S[step:] / 2
        shares_S = moved_S
    far_S = np.abs(np.arange(-total, total + 1)) >= observed
    return min(1.0, float(shares_S[far_S].sum()))


def _drawn(sums_G: np.ndarray, observed: float) -> float:
    rng, found = np.random.default_rng(SEED), 0
    for start in range(0, FLIPS, BATCH):
        signs = rng.choice([-1.0, 1.0], (min(BATCH, FLIPS - start), len(sums_G)))
        found += int((np.abs(signs @ sums_G) >= observed - 1e-9).sum())
    return (1 + found) / (1 + FLIPS)
