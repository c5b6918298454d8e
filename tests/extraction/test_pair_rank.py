"""Is it one direction at a layer: pairs that refuse along one of k orthogonal directions, with kind effects."""

from collections import Counter

import numpy as np
import pytest

from extraction.pair_rank import pair_rank
from extraction.structure import structure
from tests.extraction.streams import LAYERS, sides_along

FEW, MANY = 2, 12


def counts(draws: int, directions: int, pairs: int, kinds: int, icc: float, **planted: object) -> Counter[int]:
    found = [pair_rank(*sides_along(directions, pairs, kinds, icc, seed, **planted)) for seed in range(draws)]  # type: ignore[arg-type]
    found_by_count = Counter(one.directions for one in found)
    reverse = Counter(one.reverse for one in found)
    label = f"planted {directions}, {pairs} pairs, {kinds} kinds, ICC {icc}, {planted or ''}"
    print(f"{label}: found {dict(sorted(found_by_count.items()))}, sides exchanged {dict(sorted(reverse.items()))}")
    return found_by_count


@pytest.mark.parametrize(("directions", "pairs"), [(1, 256), (2, 256), (3, 256), (5, 512)])
def test_the_planted_number_is_found(directions: int, pairs: int) -> None:
    assert counts(FEW, directions, pairs, 55, 0.08)[directions] >= FEW - 1


@pytest.mark.parametrize(("kinds", "icc"), [(55, 0.5), (16, 0.5)])
def test_kind_effects_do_not_turn_one_direction_into_more(kinds: int, icc: float) -> None:
    assert counts(FEW, 1, 256, kinds, icc)[1] == FEW


def test_massive_components_hide_nothing_and_add_nothing() -> None:
    assert counts(1, 1, 256, 55, 0.5, massive=True)[1] == 1
    assert counts(1, 3, 256, 55, 0.2, massive=True)[3] == 1


def test_directions_that_go_by_kind_are_found_too() -> None:
    found = counts(2, 2, 256, 55, 0.08, of_kind=True)
    assert found[1] == 0


def test_the_means_hide_what_the_pairs_show() -> None:
    declined, answered, kinds = sides_along(3, 256, 55, 0.08, 0)
    means = structure(np.repeat((declined - answered)[:, None], LAYERS, axis=1), kinds)
    assert means is not None and means.answer == "one direction"
    found = pair_rank(declined, answered, kinds)
    assert found.answer == "more than one"
    assert min(found.spread[: found.directions - 1]) > 1.5 * found.usual


def test_no_difference_is_no_direction_and_few_pairs_cannot_tell() -> None:
    declined, answered, kinds = sides_along(1, 128, 32, 0.2, 0, strength=0.0)
    assert pair_rank(declined, answered, kinds).answer == "no direction"
    assert pair_rank(answered, answered, kinds).answer == "no direction"
    assert pair_rank(declined[:20], answered[:20], kinds[:20]).answer == "cannot tell"


def test_eight_kinds_cannot_tell() -> None:
    assert pair_rank(*sides_along(1, 256, 8, 0.5, 0)).answer == "cannot tell"
    assert pair_rank(*sides_along(2, 256, 8, 0.5, 0)).answer == "cannot tell"


def test_an_answered_side_that_spreads_more_shows_with_the_sides_exchanged() -> None:
    declined, answered, kinds = sides_along(2, 256, 55, 0.08, 0)
    found = pair_rank(answered, declined, kinds)
    assert found.directions == 1 and found.reverse == 1


def test_content_that_differs_on_both_sides_leaves_the_answer_open() -> None:
    declined, answered, kinds = sides_along(1, 256, 55, 0.08, 0)
    scale_H = np.ones(declined.shape[1])
    scale_H[:3], scale_H[3:6] = 2.5, 0.4
    found = pair_rank(declined * scale_H, answered / scale_H, kinds)
    print(f"{found.directions} found, with the sides exchanged {found.reverse}: {found.answer}")
    assert found.directions > 1 and found.answer == "cannot tell"


@pytest.mark.slow
@pytest.mark.parametrize("icc", [0.0, 0.08, 0.2, 0.5])
@pytest.mark.parametrize("directions", [1, 2, 3, 5])
@pytest.mark.parametrize("pairs", [256, 512])
def test_the_table_of_planted_numbers(directions: int, pairs: int, icc: float) -> None:
    found = counts(MANY, directions, pairs, 55, icc)
    assert sum(times for count, times in found.items() if count > directions) <= 0.2 * MANY


@pytest.mark.slow
@pytest.mark.parametrize("icc", [0.2, 0.5])
def test_sixteen_kinds_and_massive_components(icc: float) -> None:
    for directions in (1, 2, 3):
        found = [counts(MANY, directions, 256, 16, icc), counts(MANY, directions, 256, 55, icc, massive=True)]
        assert all(sum(times for count, times in one.items() if count > directions) <= 0.2 * MANY for one in found)
