"""Stability of a mean difference, against closed forms and against knowing the truth."""

import numpy as np
import pytest

from extraction.kind_directions import kind_cosines
from extraction.stability import curve, doubling, expected_cosine, pairs_needed, signal_and_noise, stability

HIDDEN = 60
TRUE = np.zeros(HIDDEN)
TRUE[0] = 2.0


def draw(pairs: int, seed: int, mean: np.ndarray = TRUE) -> np.ndarray:
    """Differences with unit noise in every component: ||mu||^2 = 4, tr Cov = 60."""
    return mean + np.random.default_rng(seed).standard_normal((pairs, HIDDEN))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def test_signal_and_noise_are_unbiased() -> None:
    found = np.mean([signal_and_noise(draw(10, seed)) for seed in range(500)], axis=0)
    print(f"mean of 500 draws of 10 pairs: signal {found[0]:.2f} (true 4), noise {found[1]:.2f} (true 60)")
    assert found[0] == pytest.approx(4, abs=0.3)
    assert found[1] == pytest.approx(60, rel=0.02)


def test_the_expected_cosine_is_what_draws_give() -> None:
    for pairs in (8, 64, 256):
        observed = np.mean([cosine(draw(pairs, seed).mean(axis=0), TRUE) for seed in range(200)])
        print(f"{pairs} pairs: cosine to the true direction {observed:.3f}, expected {expected_cosine(4, 60, pairs):.3f}")
        assert observed == pytest.approx(expected_cosine(4, 60, pairs), abs=0.02)


def test_the_pairs_that_are_enough_are_enough() -> None:
    needed = pairs_needed(4, 60)
    assert needed is not None
    assert expected_cosine(4, 60, needed) == pytest.approx(0.95)
    assert pairs_needed(-0.1, 60) is None


def test_a_direction_is_more_stable_than_swapped_sides() -> None:
    found = stability(draw(100, 0))
    print(f"split half {found.split_half}, null {found.null}, bootstrap {found.bootstrap}")
    assert found.split_half[1] > found.null[2]
    assert abs(found.null[0]) < 0.1
    noise = stability(draw(100, 0, np.zeros(HIDDEN)))
    assert (noise.split_half[0] < 0.3 and noise.enough is None) or noise.enough > 500


def test_the_curve_rises_with_pairs() -> None:
    points = curve(draw(128, 1), doubling(128))
    assert [point["pairs"] for point in points] == [4, 8, 16, 32, 64]
    medians = [point["split"][0] for point in points]  # type: ignore[index]
    assert medians == sorted(medians)
    assert doubling(3) == []
    assert doubling(4) == [2]


def test_a_kind_with_another_direction_shows() -> None:
    other = np.zeros(HIDDEN)
    other[1] = 2.0
    data = np.concatenate([draw(60, 0), draw(60, 1), draw(60, 2, other)])
    found = kind_cosines(data, ["a"] * 60 + ["b"] * 60 + ["c"] * 60)
    print(found)
    assert found["c"]["cosine"] < 0.3 < found["a"]["cosine"]
    assert "rare" not in kind_cosines(data[:61], ["a"] * 60 + ["rare"])
