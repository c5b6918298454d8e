"""Kinds with a direction of their own: how far each kind's direction is from all others', against shuffled kinds.

The extreme of many kinds is far from the others by chance alone. So each kind is compared with what pairs that were dealt to
kinds at random give, and its p is of the most extreme kind of each deal (max-T of Westfall and Young 1993).
"""
# N = pairs, G = kinds, H = hidden size, R = deals

from collections.abc import Sequence
from typing import Any

import numpy as np

from extraction.kinds import Kinds
from extraction.stability import expected_cosine, signal_and_noise

SEED = 0
DEALS = 1000
TAIL = 0.025
TINY = np.finfo(np.float64).tiny


def kind_cosines(differences_NH: np.ndarray, kinds: Sequence[str], least: int = 2) -> dict[str, dict[str, Any]]:
    """For each named kind with `least` pairs: cosine between its direction and the direction of all other pairs.

    ceiling: what the noise alone leaves of that cosine, were the kind's true direction that of the others.
    expected: [median, 2.5 %, 97.5 %] of the cosine where pairs are dealt to kinds at random.
    p: share of deals whose most extreme kind is as far below its expectation as this one, in standard deviations. It is
    corrected for the number of kinds, and exact where kinds mean nothing.
    """
    of_kind = Kinds.of(kinds, len(differences_NH))
    sizes_G = of_kind.sizes_G
    known_G = (sizes_G >= least) & (len(kinds) - sizes_G >= least)
    if not known_G.any():
        return {}
    gram_NN, rng = differences_NH @ differences_NH.T, np.random.default_rng(SEED)
    cosines_G = _cosines(gram_NN, of_kind.codes_N)
    dealt_RG = np.stack([_cosines(gram_NN, rng.permutation(of_kind.codes_N)) for _ in range(DEALS)])
    centre_G, spread_G = dealt_RG.mean(axis=0), np.maximum(dealt_RG.std(axis=0), TINY)
    extreme_R = ((centre_G - dealt_RG) / spread_G)[:, known_G].max(axis=1)
    below_G = (centre_G - cosines_G) / spread_G
    found: dict[str, dict[str, Any]] = {}
    for kind, place in sorted(dict(zip(kinds, of_kind.codes_N.tolist(), strict=True)).items()):
        if kind and known_G[place]:
            low, middle, high = np.quantile(dealt_RG[:, place], [TAIL, 0.5, 1 - TAIL])
            found[kind] = {
                "pairs": int(sizes_G[place]),
                "cosine": float(cosines_G[place]),
                "ceiling": _ceiling(differences_NH, kinds, of_kind.codes_N == place),
                "expected": [float(middle), float(low), float(high)],
                "p": float((1 + np.sum(extreme_R >= below_G[place])) / (1 + DEALS)),
            }
    return found


def _cosines(gram_NN: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
    """Cosine of each kind's sum to the sum of all other pairs, (G,), from the pairs' inner products."""
    total_G = np.bincount(codes_N, gram_NN.sum(axis=1))
    within_G = np.bincount(codes_N, np.where(codes_N[:, None] == codes_N, gram_NN, 0).sum(axis=1))
    others_G = gram_NN.sum() - 2 * total_G + within_G
    lengths_G = np.sqrt(np.maximum(within_G, 0) * np.maximum(others_G, 0))
    return np.divide(total_G - within_G, lengths_G, out=np.zeros(len(total_G)), where=lengths_G > 0)


def _ceiling(differences_NH: np.ndarray, kinds: Sequence[str], own_N: np.ndarray) -> float:
    """The expected cosine between the means of the kind's pairs and of the others', with the others' signal and noise."""
    others_NH = differences_NH[~own_N]
    of_pairs = signal_and_noise(others_NH)
    of_kinds = signal_and_noise(others_NH, [kind for kind, own in zip(kinds, own_N, strict=True) if not own])
    return expected_cosine(*of_pairs, int(own_N.sum())) * expected_cosine(*of_kinds, len(others_NH))
