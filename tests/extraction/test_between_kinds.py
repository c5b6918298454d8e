"""Directions of several kinds, on streams with planted answers: cosines without noise, own parts, and the test's size."""

import numpy as np
import pytest

from extraction.between_kinds import OfKind, between_kinds, dealt_p, noise_free_cosines, own_shares, spectrum_of

HIDDEN, PAIRS, TEMPLATES = 64, 48, 12


def planted(direction_H: np.ndarray, rng: np.random.Generator, noise: float = 1.0, shared: float = 0.5) -> OfKind:
    """Differences around a direction: each template has a part of the noise."""
    templates = [f"t{place % TEMPLATES}" for place in range(PAIRS)]
    of_template = rng.normal(0, np.sqrt(shared) * noise, (TEMPLATES, HIDDEN))
    own = rng.normal(0, np.sqrt(1 - shared) * noise, (PAIRS, HIDDEN))
    return OfKind(direction_H + of_template[np.arange(PAIRS) % TEMPLATES] + own, templates)


def at_cosine(cosine: float, length: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.zeros(HIDDEN), np.zeros(HIDDEN)
    first[0] = length
    second[0], second[1] = length * cosine, length * np.sqrt(1 - cosine**2)
    return first, second


@pytest.mark.parametrize("cosine", [0.0, 0.5, 1.0])
def test_the_cosine_is_the_planted_one(cosine: float) -> None:
    rng = np.random.default_rng(1)
    found = [noise_free_cosines([planted(one, rng) for one in at_cosine(cosine)])[0, 1] for _ in range(60)]
    assert np.mean(found) == pytest.approx(cosine, abs=0.06)


def test_the_plain_cosine_is_lower_by_the_noise() -> None:
    rng = np.random.default_rng(1)
    means = [[planted(one, rng).differences_NH.mean(axis=0) for one in at_cosine(1.0)] for _ in range(60)]
    plain = [one @ other / np.linalg.norm(one) / np.linalg.norm(other) for one, other in means]
    assert np.mean(plain) < 0.85


def test_intervals_hold_the_planted_cosine() -> None:
    rng, held = np.random.default_rng(2), 0
    for _ in range(60):
        _, low, high = between_kinds([planted(one, rng) for one in at_cosine(0.5)], deals=1).cosines[0][1]
        held += low <= 0.5 <= high
    assert held >= 53


def test_a_kind_in_the_span_of_the_others_has_nothing_of_its_own() -> None:
    basis = np.eye(3)[:, :2]
    units = np.vstack([basis.T, (basis[:, 0] + basis[:, 1]) / np.sqrt(2)])
    assert own_shares(units @ units.T) == pytest.approx([0, 0, 0], abs=1e-9)


def test_orthogonal_kinds_are_their_own() -> None:
    assert own_shares(np.eye(4)) == pytest.approx([1, 1, 1, 1])


def test_a_kind_alone_is_its_own() -> None:
    assert own_shares(np.eye(1)) == pytest.approx([1])


def test_one_shared_direction_holds_the_whole_spectrum() -> None:
    assert spectrum_of(np.ones((3, 3))) == pytest.approx([1, 0, 0], abs=1e-9)


def test_of_one_direction_the_test_rejects_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(200):
        kinds = [planted(one, rng) for one in at_cosine(1.0)]
        p_values.append(dealt_p(*kinds, float(noise_free_cosines(kinds)[0, 1]), 199))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.085


def test_of_two_directions_it_rejects() -> None:
    rng = np.random.default_rng(4)
    rejected = 0
    for _ in range(40):
        kinds = [planted(one, rng) for one in at_cosine(0.5)]
        rejected += dealt_p(*kinds, float(noise_free_cosines(kinds)[0, 1]), 199) <= 0.05
    assert rejected >= 36


def test_intervals_over_few_templates_are_numbers() -> None:
    rng = np.random.default_rng(6)
    kinds = [OfKind(rng.normal(1, 1, (6, HIDDEN)), [f"t{place // 2}" for place in range(6)]) for _ in range(2)]
    assert np.isfinite(between_kinds(kinds, deals=9).cosines).all()


def test_reliability_is_the_share_of_signal() -> None:
    rng = np.random.default_rng(5)
    direction = at_cosine(1.0)[0]
    shares = [between_kinds([planted(direction, rng)] * 2, deals=1).reliability[0] for _ in range(30)]
    noise = HIDDEN * (0.5 / TEMPLATES + 0.5 / PAIRS)
    assert np.mean(shares) == pytest.approx(9 / (9 + noise), abs=0.05)
