"""Do the layers' means share a line, where pairs come in kinds: the verdict, its p and its interval hold."""

from collections import Counter

import numpy as np
import pytest

from extraction.structure import half_angles, reliable_layers, shuffled_spectra, structure, unbiased_grams
from tests.extraction.streams import LAYERS, differences_of_kinds, kind_names

PAIRS, DRAWS, MANY = 256, 8, 60


def cell(draws: int, kinds: int, icc: float, *, by_kind: bool = True, **planted: object) -> tuple[Counter[str], int, int]:
    """Answers; draws whose interval of the first share holds the truth; draws with p of one direction below 0.05."""
    answers: Counter[str] = Counter()
    covered = rejected = 0
    for seed in range(draws):
        data = differences_of_kinds(PAIRS, kinds, icc, seed, **planted)  # type: ignore[arg-type]
        found = structure(data, kind_names(PAIRS, kinds) if by_kind else None)
        answers["no reliable layer" if found is None else found.answer] += 1
        if found is not None:
            covered += found.first_share[1] <= 1 <= found.first_share[2]
            rejected += found.p_one < 0.05
    label = "over kinds" if by_kind else "over pairs"
    print(
        f"{kinds} kinds, ICC {icc}, {planted or ''} {label}: {dict(answers)}, covered {covered}, p < 0.05 {rejected} of {draws}"
    )
    return answers, covered, rejected


@pytest.mark.parametrize("icc", [0.08, 0.2, 0.5])
def test_kind_effects_do_not_turn_one_direction_into_more(icc: float) -> None:
    answers, covered, rejected = cell(DRAWS, 55, icc)
    assert answers["one direction"] == DRAWS
    assert covered >= DRAWS - 1
    assert rejected <= 2


@pytest.mark.parametrize("icc", [0.2, 0.5])
def test_kind_effects_without_a_direction_give_no_reliable_layer(icc: float) -> None:
    answers, _, _ = cell(DRAWS, 55, icc, strength=0.0)
    assert answers["no reliable layer"] == DRAWS


@pytest.mark.parametrize("by_layer", [False, True])
def test_eight_kinds_do_not_turn_the_verdict(by_layer: bool) -> None:
    answers, _, _ = cell(DRAWS, 8, 0.5, by_layer=by_layer)
    assert set(answers) <= {"one direction", "cannot tell"}
    assert cell(DRAWS, 8, 0.5, strength=0.0, by_layer=by_layer)[0]["no reliable layer"] == DRAWS


@pytest.mark.slow
@pytest.mark.parametrize(("kinds", "icc"), [(55, 0.0), (55, 0.08), (55, 0.2), (55, 0.5), (8, 0.2), (8, 0.5)])
def test_the_share_is_covered_and_p_rejects_as_often_as_they_say(kinds: int, icc: float) -> None:
    answers, covered, rejected = cell(MANY, kinds, icc)
    assert set(answers) <= {"one direction", "cannot tell"}
    assert answers["one direction"] >= (0.95 if kinds == 55 else 0.6) * MANY
    assert covered >= 0.9 * MANY
    assert rejected <= 0.12 * MANY
    cell(MANY // 4, kinds, icc, by_kind=False)


def test_inner_products_meet_no_pair_of_their_own_kind() -> None:
    data, kinds = differences_of_kinds(12, 5, 0.3, 0), kind_names(12, 5)
    sums = np.stack([sum(row for row, name in zip(data, kinds, strict=True) if name == kind) for kind in sorted(set(kinds))])
    weights = np.array([[2.0, 0, 1, 1, 1]])
    found = next(unbiased_grams(sums, weights, np.array([3.0, 3, 2, 2, 2])))
    times = {f"kind {place}": int(number) for place, number in enumerate(weights[0])}
    terms = [
        times[kinds[i]] * times[kinds[j]] * np.array([data[i] @ data[j].T])
        for i in range(12)
        for j in range(12)
        if kinds[i] != kinds[j]
    ]
    number = sum(times[kinds[i]] * times[kinds[j]] for i in range(12) for j in range(12) if kinds[i] != kinds[j])
    assert np.allclose(found, np.sum(terms, axis=0)[0] / number)


def test_two_lines_are_told_from_one_in_spite_of_kinds() -> None:
    answers, _, rejected = cell(DRAWS, 55, 0.2, planted="2")
    assert answers["low rank"] >= DRAWS - 1
    assert rejected == DRAWS


def test_halves_and_swaps_are_of_whole_kinds() -> None:
    data, kinds = differences_of_kinds(64, 8, 0.5, 0, strength=0.0), kind_names(64, 8)
    assert half_angles(data, [1], kinds)[1][0] > half_angles(data, [1])[1][0]  # whole kinds share nothing
    assert shuffled_spectra(data, kinds).shape == (20, LAYERS)
    assert reliable_layers(data, kinds) == []
    assert reliable_layers(data) != []
