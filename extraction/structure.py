"""One direction or many: the structure of the layers' directions, with the noise of few pairs taken out.

Directions from N pairs carry noise, and the residual stream carries the same noise from layer to layer. So the cosines
between them mislead in both directions. Inner products between different pairs do not: averaged over all i != j,
<d_il, d_jm> estimates <mu_l, mu_m> without bias (a U-statistic). Everything here is computed from that matrix.
"""
# N = pairs, L = layers looked at, H = hidden size, R = resamples, K = a subspace's dimension

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

TAIL = 0.025
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
    """The structure of the layers' directions. Triples are [value, 2.5 %, 97.5 %] over resampled pairs.

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


def structure(differences_NLH: np.ndarray) -> Structure | None:
    """The structure of the directions at several layers, from paired differences in float64.

    None where fewer than two layers have a reliable direction.
    """
    layers = reliable_layers(differences_NLH)
    if len(layers) < 2:
        return None
    chosen_NLH = differences_NLH[:, layers]
    count, limit = len(chosen_NLH), max(3, len(layers) // 4)
    cosines_LL = next(_cosine_matrices(chosen_NLH, np.ones((1, count))))
    spectrum_L = _spectrum(cosines_LL)
    weights_RN = _resamples(count)
    spectra_RL = np.stack([_spectrum(matrix) for matrix in _cosine_matrices(chosen_NLH, weights_RN)])
    p_one = _p_one(chosen_NLH, weights_RN, 1 - spectrum_L[0])
    shares, dimensions = _around(spectrum_L[0], spectra_RL[:, 0]), _around(num_dimensions(spectrum_L), _dimensions(spectra_RL))
    answer = _answer(shares, dimensions, p_one, limit, len(layers))
    return Structure(
        answer,
        float(np.mean([_point_answer(row, limit) == _point_answer(spectrum_L, limit) for row in spectra_RL])),
        p_one,
        shares,
        dimensions,
        _around(effective_rank(spectrum_L), np.array([effective_rank(row) for row in spectra_RL])),
        [_around(spectrum_L[place], spectra_RL[:, place]) for place in range(len(layers))],
        cosines_LL.tolist(),
        layers,
        [layers[place] for place in longest_shared(cosines_LL, layers)],
        limit,
    )


def reliable_layers(differences_NLH: np.ndarray) -> list[int]:
    """Places of the layers whose direction is mostly signal: unbiased ||mu||^2 is at least half of the mean's squared length."""
    gram_LL = next(unbiased_grams(differences_NLH, np.ones((1, len(differences_NLH)))))
    lengths_L = (differences_NLH.mean(axis=0) ** 2).sum(axis=-1)
    return [place for place, signal in enumerate(np.diag(gram_LL)) if signal >= RELIABLE * lengths_L[place] > 0]


def unbiased_grams(differences_NLH: np.ndarray, weights_RN: np.ndarray, *, known_mean: bool = False) -> Iterator[np.ndarray]:
    """<mu_l, mu_m> of every two layers, (L, L), for each row of weights.

    weights_RN: whole numbers, how often each pair was drawn.
    known_mean: the pairs are a population whose mean is mu, and two draws of one pair are two draws. Then only a draw does
    not meet itself.
    The sum over pairs i != j of w_i w_j <d_il, d_jm>, over their number. A pair drawn twice does not meet itself, so that
    resamples scatter around the estimate.
    """
    count = len(differences_NLH)
    own_NLL = np.matmul(differences_NLH, differences_NLH.transpose(0, 2, 1))
    flat_ND = differences_NLH.reshape(count, -1)
    for start in range(0, len(weights_RN), CHUNK):
        chunk_RN = weights_RN[start : start + CHUNK]
        sums_RLH = (chunk_RN @ flat_ND).reshape(len(chunk_RN), *differences_NLH.shape[1:])
        alone_RN = chunk_RN if known_mean else chunk_RN**2
        same_RLL = np.einsum("rn,nlm->rlm", alone_RN, own_NLL)
        for weights_N, alone_N, sums_LH, same_LL in zip(chunk_RN, alone_RN, sums_RLH, same_RLL, strict=True):
            yield (sums_LH @ sums_LH.T - same_LL) / (weights_N.sum() ** 2 - alone_N.sum())


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


def half_angles(differences_NLH: np.ndarray, dimensions: list[int]) -> dict[int, list[float]]:
    """Principal angles in degrees between the leading subspaces of two random halves of the pairs, median over splits."""
    from scipy.linalg import subspace_angles

    rng, count = np.random.default_rng(SEED), len(differences_NLH)
    found: dict[int, list[np.ndarray]] = {size: [] for size in dimensions}
    for _ in range(SPLITS):
        order = rng.permutation(count)
        bases = [_right_basis(differences_NLH[half].mean(axis=0)) for half in (order[: count // 2], order[count // 2 :])]
        for size in dimensions:
            found[size].append(np.sort(np.degrees(subspace_angles(*[basis[:, :size] for basis in bases]))))
    return {size: [float(angle) for angle in np.median(rows, axis=0)] for size, rows in found.items()}


def shuffled_spectra(differences_NLH: np.ndarray) -> np.ndarray:
    """Spectra of the stacked unit directions with every pair's sides swapped at random, (splits, L).

    They show what any difference that this stream carries looks like.
    """
    signs_RN = np.random.default_rng(SEED).choice([-1.0, 1.0], (SPLITS, len(differences_NLH)))
    flat_ND = differences_NLH.reshape(len(differences_NLH), -1)
    drawn_RLH = (signs_RN @ flat_ND).reshape(SPLITS, *differences_NLH.shape[1:])
    return np.stack([unit_spectrum(directions_LH) for directions_LH in drawn_RLH])


def unit_spectrum(directions_LH: np.ndarray) -> np.ndarray:
    """Squared singular values of the stacked unit directions over their number, as they are: noise included."""
    return np.linalg.svd(_units(directions_LH), compute_uv=False) ** 2 / len(directions_LH)


def _cosine_matrices(differences_NLH: np.ndarray, weights_RN: np.ndarray, *, known_mean: bool = False) -> Iterator[np.ndarray]:
    floor_L = FLOOR * (differences_NLH.mean(axis=0) ** 2).sum(axis=-1)
    for gram_LL in unbiased_grams(differences_NLH, weights_RN, known_mean=known_mean):
        lengths_L = np.sqrt(np.maximum(np.diag(gram_LL), floor_L))
        yield gram_LL / np.outer(lengths_L, lengths_L)


def _spectrum(cosines_LL: np.ndarray) -> np.ndarray:
    """Eigenvalues over their sum, largest first; those of noise scatter around 0."""
    return np.linalg.eigvalsh(cosines_LL)[::-1] / len(cosines_LL)


def _resamples(count: int) -> np.ndarray:
    return np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(float)


def _p_one(differences_NLH: np.ndarray, weights_RN: np.ndarray, observed: float) -> float:
    """Share of resamples of data with one true direction, and the noise of these, that are as far from one direction."""
    means_LH = differences_NLH.mean(axis=0)
    common_H = _right_basis(means_LH)[:, 0]
    one_LH = np.outer(means_LH @ common_H, common_H)
    null_NLH = differences_NLH - means_LH + one_LH
    null_R = [1 - _spectrum(matrix)[0] for matrix in _cosine_matrices(null_NLH, weights_RN, known_mean=True)]
    return float((1 + np.sum(np.array(null_R) >= observed)) / (1 + len(null_R)))


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


def _around(value: float, resampled_R: np.ndarray) -> list[float]:
    return [float(value), *(float(bound) for bound in np.quantile(resampled_R, [TAIL, 1 - TAIL]))]


def _units(directions_LH: np.ndarray) -> np.ndarray:
    return directions_LH / np.maximum(np.linalg.norm(directions_LH, axis=-1, keepdims=True), TINY)


def _right_basis(directions_LH: np.ndarray) -> np.ndarray:
    """Right singular vectors of the stacked unit directions, (H, K)."""
    return np.linalg.svd(_units(directions_LH), full_matrices=False)[2].T
