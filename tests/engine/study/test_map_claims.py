"""The claims of a map, on planted tables of what is declined."""

import numpy as np
import pytest

from engine.study.map_claims import Column, distinct_claim, drops, knob_claim

PROMPTS, TEMPLATES = 40, 10
NAMES = ("one", "two", "three")


def column(name: str, rng: np.random.Generator, *, base: float, own: float, other: float, random: float) -> Column:
    """Prompts of ten templates, declined with these probabilities."""

    def flags(share: float) -> np.ndarray:
        return (rng.random(PROMPTS) < share).astype(float)

    templates = [f"t{place % TEMPLATES}" for place in range(PROMPTS)]
    by_kind = {other_name: flags(own if other_name == name else other) for other_name in NAMES}
    return Column(name, templates, flags(base), by_kind, [flags(random) for _ in range(3)])


def table(seed: int, *, own: float = 0.0, other: float, random: float = 0.9, base: float = 0.9) -> list[Column]:
    rng = np.random.default_rng(seed)
    return [column(name, rng, base=base, own=own, other=other, random=random) for name in NAMES]


def test_directions_that_end_all_declining_are_one_knob() -> None:
    assert {knob_claim(table(seed, other=0.05))["answer"] for seed in range(10)} == {"one knob"}


def test_directions_that_end_their_own_alone_are_knobs_of_their_own() -> None:
    assert {knob_claim(table(seed, other=0.9))["answer"] for seed in range(10)} == {"knobs of their own"}


def test_what_random_directions_do_too_is_no_knob() -> None:
    assert "one knob" not in {knob_claim(table(seed, other=0.05, random=0.05))["answer"] for seed in range(10)}


def test_half_of_the_drop_is_not_decided() -> None:
    answers = [knob_claim(table(seed, other=0.45))["answer"] for seed in range(20)]
    assert answers.count("cannot tell") >= 15


def test_the_share_is_the_planted_one() -> None:
    assert np.mean([knob_claim(table(seed, other=0.6))["share"][0] for seed in range(20)]) == pytest.approx(1 / 3, abs=0.05)


def test_a_direction_that_ends_nothing_says_nothing() -> None:
    assert knob_claim(table(1, own=0.9, other=0.9))["reason"] == "a kind's own direction ends too little of its declining"


def test_one_kind_alone_says_nothing() -> None:
    assert knob_claim(table(1, other=0.9)[:1])["reason"] == "fewer than two kinds are declined"


def test_a_drop_is_the_difference_to_the_base() -> None:
    columns = table(1, other=0.9)
    found = next(row for row in drops(columns) if (row["removed"], row["watched"]) == ("two", "two"))
    assert found["difference"]["value"] == pytest.approx(float(columns[1].by_kind["two"].mean() - columns[1].base.mean()))


def test_every_removed_kind_is_watched_in_every_column() -> None:
    assert len(drops(table(1, other=0.9))) == 9


def test_a_corrected_p_is_no_smaller() -> None:
    assert all(row["p_holm"] >= row["p"] for row in drops(table(1, other=0.9)))


def test_kinds_that_all_differ_are_distinct() -> None:
    p = [[1.0, 0.001, 0.001], [0.001, 1.0, 0.001], [0.001, 0.001, 1.0]]
    assert distinct_claim(NAMES, np.ones((3, 3, 3)).tolist(), p)["answer"] == "distinct"


def test_a_p_that_does_not_survive_the_correction_tells_nothing_apart() -> None:
    p = [[1.0, 0.04, 0.04], [0.04, 1.0, 0.04], [0.04, 0.04, 1.0]]
    assert distinct_claim(NAMES, np.ones((3, 3, 3)).tolist(), p)["answer"] == "not told apart"


def test_one_kind_has_no_pair_to_tell_apart() -> None:
    assert distinct_claim(["one"], [[[1.0, 1.0, 1.0]]], [[1.0]])["answer"] == "cannot tell"
