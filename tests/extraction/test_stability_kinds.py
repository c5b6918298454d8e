"""Stability where pairs come in kinds: signal, noise and the pairs that are enough; and kinds with a direction of their own."""

import numpy as np
import pytest

from extraction.kind_directions import kind_cosines
from extraction.stability import curve, doubling, expected_cosine, signal_and_noise, stability
from tests.extraction.streams import kind_names

HIDDEN, TRUE_LENGTH = 60, 2.0
TRUE = np.zeros(HIDDEN)
TRUE[0] = TRUE_LENGTH


def draw(pairs: int, kinds: int, icc: float, seed: int, mean: np.ndarray = TRUE) -> np.ndarray:
    """Differences of unit variance in every component, `icc` of it shared by a kind."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((kinds, HIDDEN))[np.arange(pairs) % kinds]
    return mean + np.sqrt(1 - icc) * rng.standard_normal((pairs, HIDDEN)) + np.sqrt(icc) * shared


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def test_signal_is_unbiased_over_kinds_and_not_over_pairs() -> None:
    kinds = kind_names(60, 12)
    by_kind = np.mean([signal_and_noise(draw(60, 12, 0.5, seed), kinds) for seed in range(400)], axis=0)
    by_pair = np.mean([signal_and_noise(draw(60, 12, 0.5, seed)) for seed in range(400)], axis=0)
    print(f"signal (true 4): over kinds {by_kind[0]:.2f}, over pairs {by_pair[0]:.2f}")
    assert by_kind[0] == pytest.approx(4, abs=0.25)
    assert by_pair[0] > 5
    assert by_kind[1] == pytest.approx(60 * (1 + 4 * 0.5), rel=0.05)  # the design effect of five pairs a kind


def test_kinds_of_unequal_size_leave_the_signal_unbiased() -> None:
    kinds = [f"kind {min(place // 2, place % 7)}" for place in range(40)]
    names = sorted(set(kinds))
    found = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        shared = {name: rng.standard_normal(HIDDEN) for name in names}
        data = TRUE + np.stack([0.7 * shared[kind] + 0.7 * rng.standard_normal(HIDDEN) for kind in kinds])
        found.append(signal_and_noise(data, kinds)[0])
    assert np.mean(found) == pytest.approx(4, abs=0.4)


def test_the_expected_cosine_is_what_draws_of_kinds_give() -> None:
    signal, noise = np.mean([signal_and_noise(draw(100, 20, 0.3, seed), kind_names(100, 20)) for seed in range(200)], axis=0)
    observed = np.mean([cosine(draw(100, 20, 0.3, 1000 + seed).mean(axis=0), TRUE) for seed in range(200)])
    print(f"cosine to the true direction {observed:.3f}, expected {expected_cosine(signal, noise, 100):.3f}")
    assert observed == pytest.approx(expected_cosine(signal, noise, 100), abs=0.01)


def test_the_design_effect_and_the_kinds_that_are_enough_are_said() -> None:
    found = stability(draw(200, 40, 0.5, 0), kind_names(200, 40))
    assert found.design_effect == pytest.approx(1 + 4 * 0.5, rel=0.15)
    assert found.enough is not None and found.kinds_enough == pytest.approx(found.enough / 5)
    plain = stability(draw(200, 40, 0.0, 0))
    assert plain.design_effect == pytest.approx(1)


def test_halves_of_kinds_agree_less_than_halves_of_pairs() -> None:
    data = draw(80, 8, 0.5, 1)
    by_kind, by_pair = stability(data, kind_names(80, 8)), stability(data)
    print(f"split-half cosine over kinds {by_kind.split_half}, over pairs {by_pair.split_half}")
    assert by_kind.split_half[0] < by_pair.split_half[0] - 0.1


def test_a_curve_is_over_whole_kinds() -> None:
    points = curve(draw(128, 32, 0.2, 1), doubling(32), kind_names(128, 32))
    assert [(point["kinds"], point["pairs"]) for point in points] == [(4, 16), (8, 32), (16, 64)]


@pytest.mark.parametrize("planted", [False, True])
def test_the_extreme_of_many_kinds_is_named_only_where_there_is_one(planted: bool) -> None:
    other, named = np.zeros(HIDDEN), 0
    other[1] = 3 * TRUE_LENGTH
    for seed in range(6):
        data, kinds = draw(120, 30, 0.0, seed), kind_names(120, 30)
        if planted:
            data[np.array(kinds) == "kind 7"] += other - TRUE
        found = kind_cosines(data, kinds)
        small = {kind for kind, row in found.items() if row["p"] < 0.05}
        named += bool(small)
        if planted:
            assert "kind 7" in small
            assert found["kind 7"]["cosine"] < found["kind 7"]["expected"][1]
    print(f"draws with a kind that is named, planted {planted}: {named} of 6")
    assert planted or named <= 2


def test_prompts_without_a_kind_are_no_kind() -> None:
    data = draw(40, 4, 0.0, 0)
    assert kind_cosines(data, [""] * 40) == {}
    assert set(kind_cosines(data, ["a"] * 10 + ["b"] * 10 + [""] * 20)) == {"a", "b"}
