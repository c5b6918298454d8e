"""One direction or many, on streams whose answer was planted."""

from collections import Counter

import numpy as np
import pytest

from extraction.structure import (
    effective_rank,
    half_angles,
    longest_shared,
    num_dimensions,
    reliable_layers,
    shuffled_spectra,
    structure,
    unbiased_grams,
    unit_spectrum,
)
from tests.extraction.streams import LAYERS, differences, noisy, planted_directions

EXPECTED = {"1": "one direction", "2": "low rank", "3": "low rank", "rotating": "rotating"}
SEEDS = 20


@pytest.mark.parametrize("pairs", [pytest.param(16, marks=pytest.mark.slow), 32, 64, pytest.param(128, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_the_planted_answer_is_recovered(kind: str, pairs: int) -> None:
    found = [structure(differences(kind, pairs, seed)) for seed in range(SEEDS)]
    answers = Counter(one.answer for one in found if one is not None)
    sizes = Counter(round(one.dimensions[0]) for one in found if one is not None)
    print(f"planted {kind}, {pairs} pairs: {dict(answers)}, dimensions for 90 % {dict(sizes)}")
    allowed = {EXPECTED[kind], "cannot tell", "more than one"}
    assert set(answers) <= allowed  # never the wrong one
    if pairs >= 32:
        assert answers[EXPECTED[kind]] >= 0.95 * SEEDS
    if pairs >= 64 and kind != "rotating":
        assert sizes[int(kind)] >= 0.95 * SEEDS


@pytest.mark.parametrize(
    "kind", [kind if kind == "2" else pytest.param(kind, marks=pytest.mark.slow) for kind in sorted(EXPECTED)]
)
def test_a_weak_direction_is_seldom_answered_wrongly(kind: str) -> None:
    found = [structure(differences(kind, 96, seed, strength=1.2)) for seed in range(SEEDS)]
    answers = Counter("no reliable layer" if one is None else one.answer for one in found)
    print(f"planted {kind}, 1.2 noise units long, 96 pairs: {dict(answers)}")
    wrong = {"one direction", "low rank", "rotating"} - {EXPECTED[kind]}
    assert sum(answers[name] for name in wrong) <= 0.1 * SEEDS
    if kind == "2":  # two dimensions, of which the first holds nearly 0.9 in some draws
        assert answers["cannot tell"] >= 0.25 * SEEDS


def test_p_of_one_direction_is_not_small_where_there_is_one() -> None:
    p_values = [one.p_one for seed in range(SEEDS) if (one := structure(differences("1", 64, seed))) is not None]
    print("p of one direction, planted 1:", np.round(np.sort(p_values), 2))
    assert len(p_values) == SEEDS
    assert sum(p < 0.05 for p in p_values) <= 4


def test_inner_products_are_unbiased_where_the_raw_ones_are_not() -> None:
    planted_LH = planted_directions("2", np.random.default_rng(5))
    scale_L = np.linspace(1, 2, LAYERS)
    expected = (3.0 * planted_LH * scale_L[:, None]) @ (3.0 * planted_LH * scale_L[:, None]).T
    raw, unbiased = [], []
    for seed in range(300):
        data = noisy(planted_LH, 12, np.random.default_rng(seed))
        unbiased.append(next(unbiased_grams(data, np.ones((1, 12)))))
        raw.append(data.mean(axis=0) @ data.mean(axis=0).T)
    off, raw_off = (float(np.abs(np.mean(found, axis=0) - expected).max() / expected.max()) for found in (unbiased, raw))
    print(f"largest bias of an inner product over the largest one: unbiased {off:.3f}, raw {raw_off:.3f}")
    assert off < 0.1 * raw_off


def test_weights_count_as_repetition_and_a_pair_does_not_meet_itself() -> None:
    data = differences("2", 6, 0)
    weights = np.array([[2.0, 0, 1, 1, 2, 0]])
    found = next(unbiased_grams(data, weights))
    repeated = [(place, copy) for place, times in enumerate(weights[0]) for copy in range(int(times))]
    terms = [data[i] @ data[j].T for i, _ in repeated for j, _ in repeated if i != j]
    print(f"largest difference {np.abs(found - np.mean(terms, axis=0)).max():.1e}")
    assert np.allclose(found, np.mean(terms, axis=0))


def test_layers_without_a_direction_are_left_out() -> None:
    data = differences("1", 64, 0)
    data[:, 3] = np.random.default_rng(9).standard_normal(data[:, 3].shape)
    assert reliable_layers(data) == [layer for layer in range(LAYERS) if layer != 3]
    found = structure(data)
    assert found is not None
    assert 3 not in found.layers
    assert len(found.cosines) == LAYERS - 1
    assert structure(np.random.default_rng(1).standard_normal((32, 4, 20))) is None


def test_layers_of_very_different_length_count_alike() -> None:
    data = differences("1", 64, 0) * np.logspace(0, 5, LAYERS)[:, None]
    found = structure(data)
    assert found is not None
    trace = sum(row[0] for row in found.spectrum)
    print(f"lengths over five decades: {found.answer}, first share {found.first_share}, trace {trace:.3f}")
    assert found.answer == "one direction"
    assert trace == pytest.approx(1)


def test_two_layers_are_too_few_for_low_rank_and_a_run_has_no_gaps() -> None:
    data = differences("rotating", 128, 0)
    two = structure(data[:, [0, 6]])
    assert two is not None
    assert two.answer == "more than one"
    cosines = np.ones((4, 4))
    assert longest_shared(cosines, [5, 6, 20, 21]) == (2, 3)
    assert longest_shared(cosines, [5, 6, 7, 21]) == (0, 2)


def test_shuffled_labels_have_the_spectrum_of_noise_that_the_stream_carries() -> None:
    data = differences("1", 128, 0)
    shuffled, true = shuffled_spectra(data)[:, 0], unit_spectrum(data.mean(axis=0))[0]
    print(f"first component: true labels {true:.2f}, shuffled {np.median(shuffled):.2f}")
    assert np.quantile(shuffled, 0.975) < true
    assert np.median(shuffled) > 1.5 / LAYERS


def test_spectrum_effective_rank_and_angles_against_closed_forms() -> None:
    assert effective_rank(np.full(5, 0.2)) == pytest.approx(5)
    assert effective_rank(np.array([1.0, 0.0, -0.01])) == pytest.approx(1)
    assert [num_dimensions(np.array(row)) for row in ([0.95, 0.05], [0.5, 0.4, 0.1], [0.6, 0.25, 0.15])] == [1, 2, 3]
    one = np.outer([1.0, 2.0, -3.0], np.eye(4)[0])
    assert np.allclose(unit_spectrum(one), [1, 0, 0])
    angles = half_angles(differences("2", 256, 0), [1, 2, 3])
    print(f"planted 2, principal angles between halves of 256 pairs: {angles}")
    assert angles[2][1] < 15
    assert angles[3][2] > 45  # the third dimension is noise
