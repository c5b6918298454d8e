"""How far the directions of several kinds of refusal are one: cosines without the noise of few pairs, and what each has alone.

Two kinds have no pair in common, so the inner product of their mean differences has no noise in it on average; a kind's own
squared length is estimated from pairs of different templates (`extraction.stability`). Templates are what is drawn and dealt.
"""
# K = kinds of refusal, N = pairs of one, G = its templates, H = hidden size, R = resamples

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extraction.kinds import Kinds
from extraction.structure import num_dimensions, unbiased_grams

SEED = 0
RESAMPLES, DEALS = 500, 1000
FLOOR = 1e-2  # of a direction's squared length: a resample that finds no signal does not divide by nothing
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Between:
    """Several kinds' directions at one layer. Triples are [value, 2.5 %, 97.5 %] over drawn templates.

    cosines: noise-free, of every two kinds, (K, K).
    reliability: of each kind, the share of its direction's squared length that is signal.
    spectrum: shares of the components of the kinds' unit directions, largest first.
    dimensions: components that hold 90 %.
    own: of each kind, the share of its squared direction that lies outside the others' span.
    p: of each two kinds, how often templates dealt to two kinds at random give a cosine as low; 1 on the diagonal.
    """

    cosines: list[list[list[float]]]
    reliability: list[float]
    spectrum: list[float]
    dimensions: int
    own: list[float]
    p: list[list[float]]


@dataclass(frozen=True)
class OfKind:
    """The paired differences (declined minus answered) of one kind at one layer, (N, H) float64, and their templates."""

    differences_NH: np.ndarray
    templates: Sequence[str]

    @property
    def units(self) -> Kinds:
        return Kinds.of(self.templates, len(self.differences_NH))


def between_kinds(kinds: Sequence[OfKind], *, deals: int = DEALS) -> Between:
    """Cosines, spectrum and own parts of K kinds at one layer; `deals` of each two kinds make p."""
    rng = np.random.default_rng(SEED)
    drawn = [np.vstack([np.ones((1, kind.units.count)), _drawn(kind.units, rng)]) for kind in kinds]
    cosines_RKK = cosines_of(grams(kinds, drawn))
    tail = min(kind.units.tail for kind in kinds)
    low_KK, high_KK = np.quantile(cosines_RKK[1:], [tail, 1 - tail], axis=0)
    value_KK = cosines_RKK[0]
    spectrum_K = spectrum_of(value_KK)
    triples = np.stack([value_KK, np.minimum(low_KK, value_KK), np.maximum(high_KK, value_KK)], axis=-1)
    return Between(
        triples.tolist(),
        [reliability(kind) for kind in kinds],
        spectrum_K.tolist(),
        num_dimensions(spectrum_K),
        own_shares(value_KK).tolist(),
        _p_values(kinds, value_KK, deals),
    )


def _drawn(units: Kinds, rng: np.random.Generator) -> np.ndarray:
    """How often each template is drawn, (R, G); a draw of one template alone has no pair of two, and is drawn again."""
    found_RG = units.drawn(RESAMPLES, rng)
    while units.count > 1 and (alone_R := (found_RG > 0).sum(axis=1) < 2).any():
        found_RG[alone_R] = units.drawn(int(alone_R.sum()), rng)
    return found_RG


def noise_free_cosines(kinds: Sequence[OfKind]) -> np.ndarray:
    """Cosines between the kinds' true directions, (K, K), 1 on the diagonal."""
    return np.asarray(cosines_of(grams(kinds, [np.ones((1, kind.units.count)) for kind in kinds]))[0])


def grams(kinds: Sequence[OfKind], weights: Sequence[np.ndarray]) -> np.ndarray:
    """Unbiased inner products of the kinds' mean differences, (R, K, K), for each row of weights, (R, G) of each kind."""
    rows = len(weights[0])
    found_RKK = np.empty((rows, len(kinds), len(kinds)))
    means = []
    for place, (kind, weights_RG) in enumerate(zip(kinds, weights, strict=True)):
        sums_GH, sizes_G = kind.units.sums(kind.differences_NH), kind.units.sizes_G
        mean_RH = weights_RG @ sums_GH / (weights_RG @ sizes_G)[:, None]
        signal_R = np.array([gram[0, 0] for gram in unbiased_grams(sums_GH[:, None], weights_RG, sizes_G)])
        found_RKK[:, place, place] = np.maximum(signal_R, FLOOR * (mean_RH**2).sum(axis=-1))
        means.append(mean_RH)
    for one in range(len(kinds)):
        for other in range(one):
            found_RKK[:, one, other] = found_RKK[:, other, one] = (means[one] * means[other]).sum(axis=-1)
    return found_RKK


def cosines_of(grams_RKK: np.ndarray) -> np.ndarray:
    """Cosines from inner products, (R, K, K), within -1 and 1: an estimate may lie beyond."""
    lengths_RK = np.sqrt(np.maximum(np.diagonal(grams_RKK, axis1=1, axis2=2), TINY))
    return np.asarray(np.clip(grams_RKK / lengths_RK[:, :, None] / lengths_RK[:, None, :], -1, 1))


def reliability(kind: OfKind) -> float:
    """The share of a direction's squared length that is signal, at least 0."""
    sums_GH, sizes_G = kind.units.sums(kind.differences_NH), kind.units.sizes_G
    signal = next(unbiased_grams(sums_GH[:, None], np.ones((1, len(sizes_G))), sizes_G))[0, 0]
    return float(max(signal, 0.0) / max((kind.differences_NH.mean(axis=0) ** 2).sum(), TINY))


def spectrum_of(cosines_KK: np.ndarray) -> np.ndarray:
    """Shares of the components of unit directions with these cosines, largest first, (K,)."""
    values_K = np.maximum(np.linalg.eigvalsh(cosines_KK)[::-1], 0)
    return np.asarray(values_K / values_K.sum())


def own_shares(cosines_KK: np.ndarray) -> np.ndarray:
    """Of each kind, the share of its squared unit direction outside the span of the others, (K,); 1 where it is alone."""
    count, found = len(cosines_KK), []
    for place in range(count):
        others = [other for other in range(count) if other != place]
        inside = cosines_KK[place, others]
        shared = inside @ np.linalg.pinv(cosines_KK[np.ix_(others, others)], rcond=1e-6) @ inside if others else 0.0
        found.append(1 - float(np.clip(shared, 0, 1)))
    return np.array(found)


def _p_values(kinds: Sequence[OfKind], cosines_KK: np.ndarray, deals: int) -> list[list[float]]:
    p_KK = np.ones((len(kinds), len(kinds)))
    for one in range(len(kinds)):
        for other in range(one):
            p_KK[one, other] = p_KK[other, one] = dealt_p(kinds[one], kinds[other], float(cosines_KK[one, other]), deals)
    return p_KK.tolist()


def dealt_p(first: OfKind, second: OfKind, cosine: float, deals: int) -> float:
    """Share of deals of all templates to two kinds of the same sizes whose noise-free cosine is as low as this one.

    Exact where kinds mean nothing (a permutation test); it counts the pairs as seen, so it is at least 1 / (deals + 1).
    """
    rng = np.random.default_rng(SEED)
    sums_GH = np.vstack([kind.units.sums(kind.differences_NH) for kind in (first, second)])
    sizes_G = np.concatenate([kind.units.sizes_G for kind in (first, second)])
    inside_RG = np.stack([rng.permutation(len(sizes_G)) < first.units.count for _ in range(deals)]).astype(float)
    gram_GG = sums_GH @ sums_GH.T
    sides = [inside_RG, 1 - inside_RG]
    signals = [_signal(side_RG, gram_GG, sizes_G) for side_RG in sides]
    across_R = np.einsum("rg,gh,rh->r", sides[0], gram_GG, sides[1]) / ((sides[0] @ sizes_G) * (sides[1] @ sizes_G))
    dealt_R = np.clip(across_R / np.sqrt(signals[0] * signals[1]), -1, 1)
    return float((1 + np.sum(dealt_R <= cosine)) / (1 + deals))


def _signal(side_RG: np.ndarray, gram_GG: np.ndarray, sizes_G: np.ndarray) -> np.ndarray:
    """The unbiased squared length of each deal's mean, (R,), kept away from 0."""
    whole_R = np.einsum("rg,gh,rh->r", side_RG, gram_GG, side_RG)
    number_R = (side_RG @ sizes_G) ** 2
    unbiased_R = (whole_R - side_RG @ np.diag(gram_GG)) / (number_R - side_RG @ sizes_G**2)
    return np.asarray(np.maximum(unbiased_R, FLOOR * whole_R / number_R) + TINY)
