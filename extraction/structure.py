"""Do the layers' means share a line? The structure of the layers' directions, with the noise of few pairs taken out.

Directions from N pairs carry noise, and the residual stream carries the same noise from layer to layer. So the cosines
between them mislead in both directions. Inner products between pairs of different kinds do not: averaged over all i, j of
two kinds, <d_il, d_jm> estimates <mu_l, mu_m> without bias (a U-statistic). Everything here is computed from that matrix.

Knows nothing of single pairs: whether they refuse along one direction at a layer is asked by `extraction.pair_rank`.
"""
# N = pairs, G = kinds, L = layers looked at, H = hidden size, R = resamples, K = a subspace's dimension

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from extraction.kinds import Kinds

SEED = 0
RESAMPLES = 400
CHUNK = 20  # resamples at a time
SPLITS = 20
ENOUGH = 0.9  # share of the layers' squared unit directions that one direction, or a subspace, must hold
RELIABLE = 0.5  # a layer counts where this share of its direction's squared length is signal
LEVEL = 0.05
FLOOR = 1e-2  # of a layer's squared length: a resample that finds no signal there does not divide by nothing
TINY = np.finfo(np.float64).tiny
ONE, LOW_RANK, ROTATING, SEVERAL, UNKNOWN = "one direction", "low rank", "rotating", "more than one", "cannot tell"


@dataclass(frozen=True)
class Structure:
    """The structure of the layers' directions. Triples are [value, 2.5 %, 97.5 %] over resampled kinds.

    answer: one direction; low rank (a subspace of at most `limit` dimensions); rotating (no small subspace); more than one
    (between those two, or too few layers to say); or cannot tell.
    support: share of resamples whose spectrum is on the same side of the thresholds as the data's.
    p_one: how often data with one true direction look as far from it as these (parametric bootstrap).
    first_share: share of the first component in the corrected spectrum, the mean squared cosine of the layers' true
    directions to the common one.
    dimensions: components that hold 90 %.
    effective_rank: exp of the spectrum's entropy (Roy and Vetterli 2007).
    cosines: corrected, (L, L).
    layers: places of the layers with a reliable direction; the others are left out.
    longest_shared: first and last layer of the longest run of neighbours that share one direction, by the same 0.9.
    """

    answer: str
    support: float
    p_one: float
    first_share: list[float]
    dimensions: list[float]
    effective_rank: list[float]
    spectrum: list[list[float]]
    cosines: list[list[float]]
    layers: list[int]
    longest_shared: list[int]
    limit: int


def structure(differences_NLH: np.ndarray, kinds: Sequence[str] | None = None) -> Structure | None:
    """The structure of the directions at several layers, from paired differences in float64.

    kinds: the pairs' kinds; None where each pair is its own.
    None where fewer than two layers have a reliable direction.
    """
    layers = reliable_layers(differences_NLH, kinds)
    if len(layers) < 2:
        return None
    of_kind = Kinds.of(kinds, len(differences_NLH))
    sums_GLH, sizes_G = of_kind.sums(differences_NLH[:, layers]), of_kind.sizes_G
    weights_RG = of_kind.drawn(RESAMPLES, np.random.default_rng(SEED))
    cosines_LL = next(_cosine_matrices(sums_GLH, sizes_G, np.ones((1, of_kind.count))))
    spectra_RL = np.stack([_spectrum(matrix) for matrix in _cosine_matrices(sums_GLH, sizes_G, weights_RG)])
    p_one = _p_one(sums_GLH, sizes_G, 1 - _spectrum(cosines_LL)[0])
    return _summary(cosines_LL, spectra_RL, p_one, layers, of_kind.tail)


def _summary(cosines_LL: np.ndarray, spectra_RL: np.ndarray, p_one: float, layers: list[int], tail: float) -> Structure:
    spectrum_L, limit = _spectrum(cosines_LL), max(3, len(layers) // 4)
    shares = _around(spectrum_L[0], spectra_RL[:, 0], tail)
    dimensions = _around(num_dimensions(spectrum_L), _dimensions(spectra_RL), tail)
    return Structure(
        _answer(shares, dimensions, p_one, limit, len(layers)),
        float(np.mean([_point_answer(row, limit) == _point_answer(spectrum_L, limit) for row in spectra_RL])),
        p_one,
        shares,
        dimensions,
        _around(effective_rank(spectrum_L), np.array([effective_rank(row) for row in spectra_RL]), tail),
        [_around(spectrum_L[place], spectra_RL[:, place], tail) for place in range(len(layers))],
        cosines_LL.tolist(),
        layers,
        [layers[place] for place in longest_shared(cosines_LL, layers)],
        limit,
    )


def reliable_layers(differences_NLH: np.ndarray, kinds: Sequence[str] | None = None) -> list[int]:
    """Places of the layers whose direction is mostly signal: unbiased ||mu||^2 is at least half of the mean's squared length."""
    of_kind = Kinds.of(kinds, len(differences_NLH))
    gram_LL = next(unbiased_grams(of_kind.sums(differences_NLH), np.ones((1, of_kind.count)), of_kind.sizes_G))
    lengths_L = (differences_NLH.mean(axis=0) ** 2).sum(axis=-1)
    return [place for place, signal in enumerate(np.diag(gram_LL)) if signal >= RELIABLE * lengths_L[place] > 0]


def unbiased_grams(
    sums_GLH: np.ndarray, weights_RG: np.ndarray, sizes_G: np.ndarray | None = None, *, known_mean: bool = False
) -> Iterator[np.ndarray]:
    """<mu_l, mu_m> of every two layers, (L, L), for each row of weights.

    sums_GLH: the sum of each kind's differences; the differences themselves where each pair is its own kind.
    weights_RG: whole numbers, how often each kind was drawn.
    sizes_G: pairs of each kind; None for one of each.
    known_mean: the kinds are a population whose mean is mu, and two draws of one kind are two draws. Then only a draw does
    not meet itself.
    The sum over kinds g != h of w_g w_h <s_gl, s_hm>, over the number of those pairs of pairs. A kind drawn twice does not
    meet itself, so that resamples scatter around the estimate.
    """
    count = len(sums_GLH)
    sizes_G = np.ones(count) if sizes_G is None else sizes_G
    own_GLL = np.matmul(sums_GLH, sums_GLH.transpose(0, 2, 1))
    flat_GD = sums_GLH.reshape(count, -1)
    for start in range(0, len(weights_RG), CHUNK):
        chunk_RG = weights_RG[start : start + CHUNK]
        totals_RLH = (chunk_RG @ flat_GD).reshape(len(chunk_RG), *sums_GLH.shape[1:])
        alone_RG = chunk_RG if known_mean else chunk_RG**2
        same_RLL = np.einsum("rg,glm->rlm", alone_RG, own_GLL)
        numbers_R = (chunk_RG @ sizes_G) ** 2 - alone_RG @ sizes_G**2
        for total_LH, same_LL, number in zip(totals_RLH, same_RLL, numbers_R, strict=True):
            yield (total_LH @ total_LH.T - same_LL) / number


def effective_rank(spectrum_L: np.ndarray) -> float:
    """exp(entropy) of the spectrum's positive part (Roy and Vetterli 2007)."""
    shares = spectrum_L[spectrum_L > 0] / spectrum_L[spectrum_L > 0].sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def num_dimensions(spectrum_L: np.ndarray) -> int:
    """Number of components, largest first, that hold 90 % of the spectrum."""
    return int(np.searchsorted(np.cumsum(spectrum_L), ENOUGH - 1e-12) + 1)


def longest_shared(cosines_LL: np.ndarray, layers: list[int]) -> tuple[int, int]:
    """First and last place of the longest run of neighbours whose first component holds 0.9; of equals the latest."""
    count = len(cosines_LL)
    for size in range(count, 0, -1):
        for start in range(count - size, -1, -1):
            part = slice(start, start + size)
            if layers[start + size - 1] - layers[start] != size - 1:
                continue
            if _spectrum(cosines_LL[part, part])[0] >= ENOUGH:
                return start, start + size - 1
    return 0, 0


def half_angles(differences_NLH: np.ndarray, dimensions: list[int], kinds: Sequence[str] | None = None) -> dict[int, list[float]]:
    """Principal angles in degrees between the leading subspaces of two random halves of the kinds, median over splits."""
    from scipy.linalg import subspace_angles

    rng, of_kind = np.random.default_rng(SEED), Kinds.of(kinds, len(differences_NLH))
    sums_GLH, half = of_kind.sums(differences_NLH), of_kind.count // 2
    found: dict[int, list[np.ndarray]] = {size: [] for size in dimensions}
    for _ in range(SPLITS):
        order = rng.permutation(of_kind.count)
        bases = [_right_basis(sums_GLH[part].sum(axis=0)) for part in (order[:half], order[half:])]
        for size in dimensions:
            found[size].append(np.sort(np.degrees(subspace_angles(*[basis[:, :size] for basis in bases]))))
    return {size: [float(angle) for angle in np.median(rows, axis=0)] for size, rows in found.items()}


def shuffled_spectra(differences_NLH: np.ndarray, kinds: Sequence[str] | None = None) -> np.ndarray:
    """Spectra of the stacked unit directions with every kind's sides swapped at random, (splits, L).

    They show what any difference that this stream carries looks like.
    """
    signs_RN = Kinds.of(kinds, len(differences_NLH)).signs(SPLITS, np.random.default_rng(SEED))
    flat_ND = differences_NLH.reshape(len(differences_NLH), -1)
    drawn_RLH = (signs_RN @ flat_ND).reshape(SPLITS, *differences_NLH.shape[1:])
    return np.stack([unit_spectrum(directions_LH) for directions_LH in drawn_RLH])


def unit_spectrum(directions_LH: np.ndarray) -> np.ndarray:
    """Squared singular values of the stacked unit directions over their number, as they are: noise included."""
    return np.linalg.svd(_units(directions_LH), compute_uv=False) ** 2 / len(directions_LH)


def _cosine_matrices(
    sums_GLH: np.ndarray, sizes_G: np.ndarray, weights_RG: np.ndarray, *, known_mean: bool = False
) -> Iterator[np.ndarray]:
    floor_L = FLOOR * ((sums_GLH.sum(axis=0) / sizes_G.sum()) ** 2).sum(axis=-1)
    for gram_LL in unbiased_grams(sums_GLH, weights_RG, sizes_G, known_mean=known_mean):
        lengths_L = np.sqrt(np.maximum(np.diag(gram_LL), floor_L))
        yield gram_LL / np.outer(lengths_L, lengths_L)


def _spectrum(cosines_LL: np.ndarray) -> np.ndarray:
    """Eigenvalues over their sum, largest first; those of noise scatter around 0."""
    return np.linalg.eigvalsh(cosines_LL)[::-1] / len(cosines_LL)


def _p_one(sums_GLH: np.ndarray, sizes_G: np.ndarray, observed: float) -> float:
    """Share of draws of data with one true direction, and these kinds' noise, that are as far from one direction.

    The wild bootstrap (Liu 1988): each kind's deviation from the mean keeps its size and takes a sign at random. Drawing kinds
    with replacement would let a kind's noise meet itself, which makes p too large.
    """
    count, total = len(sums_GLH), sizes_G.sum()
    means_LH = sums_GLH.sum(axis=0) / total
    common_H = _right_basis(means_LH)[:, 0]
    one_LH = np.outer(means_LH @ common_H, common_H)
    noise_GLH = (sums_GLH - sizes_G[:, None, None] * means_LH) * np.sqrt(count / (count - 1))
    signs_RG = np.random.default_rng(SEED).choice([-1.0, 1.0], (RESAMPLES, count))
    null_R = [1 - _spectrum(cosines_LL)[0] for cosines_LL in _null_cosines(one_LH, noise_GLH, sizes_G, signs_RG)]
    return float((1 + np.sum(np.array(null_R) >= observed)) / (1 + len(null_R)))


def _null_cosines(one_LH: np.ndarray, noise_GLH: np.ndarray, sizes_G: np.ndarray, signs_RG: np.ndarray) -> Iterator[np.ndarray]:
    """Corrected cosines of kinds whose sums are n_g one + sign_g noise_g, one matrix a row of signs."""
    total, pairs = sizes_G.sum(), sizes_G.sum() ** 2 - (sizes_G**2).sum()
    own_LL = np.einsum("glh,gmh->lm", noise_GLH, noise_GLH) + (sizes_G**2).sum() * one_LH @ one_LH.T
    cross_GLL = sizes_G[:, None, None] * (noise_GLH @ one_LH.T)
    floor_L = FLOOR * (one_LH**2).sum(axis=-1)
    for signs_G in signs_RG:
        sum_LH = total * one_LH + np.tensordot(signs_G, noise_GLH, axes=1)
        cross_LL = np.tensordot(signs_G, cross_GLL, axes=1)
        gram_LL = (sum_LH @ sum_LH.T - own_LL - cross_LL - cross_LL.T) / pairs
        lengths_L = np.sqrt(np.maximum(np.diag(gram_LL), floor_L))
        yield gram_LL / np.outer(lengths_L, lengths_L)


def _answer(shares: list[float], dimensions: list[float], p_one: float, limit: int, num_layers: int) -> str:
    if shares[1] >= ENOUGH:
        return ONE
    if shares[2] >= ENOUGH or p_one >= LEVEL:
        return UNKNOWN
    if dimensions[2] <= limit < num_layers:
        return LOW_RANK
    return ROTATING if dimensions[1] > limit else SEVERAL


def _point_answer(spectrum_L: np.ndarray, limit: int) -> str:
    if spectrum_L[0] >= ENOUGH:
        return ONE
    return LOW_RANK if num_dimensions(spectrum_L) <= limit else ROTATING


def _dimensions(spectra_RL: np.ndarray) -> np.ndarray:
    return np.array([num_dimensions(row) for row in spectra_RL])


def _around(value: float, resampled_R: np.ndarray, tail: float) -> list[float]:
    return [float(value), *(float(bound) for bound in np.quantile(resampled_R, [tail, 1 - tail]))]


def _units(directions_LH: np.ndarray) -> np.ndarray:
    return directions_LH / np.maximum(np.linalg.norm(directions_LH, axis=-1, keepdims=True), TINY)


def _right_basis(directions_LH: np.ndarray) -> np.ndarray:
    """Right singular vectors of the stacked unit directions, (H, K)."""
    return np.linalg.svd(_units(directions_LH), full_matrices=False)[2].T
