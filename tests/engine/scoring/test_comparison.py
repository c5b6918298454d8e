"""Several judges on the same labels: agreement against a count by hand, and the order in which each puts the variants."""

from dataclasses import replace

import pytest

from engine.scoring.comparison import RATER, compare
from engine.scoring.labels import Label
from judging.judgement import Item, Judgement


def label(variant: str, compliance: float, declined: bool, number: int, outcome: str | None = None) -> Label:
    item = Item(f"Question {number}?", f"Answer {number}.")
    named = {"source": "edited", "variant": variant, "model": "m", "requests": "declined", "category": f"kind{number}"}
    return Label(item, compliance, 1.0, declined, "", outcome=outcome, **named)


def said(compliance: float | None, declined: bool | None, outcome: str | None = None) -> Judgement:
    return Judgement(compliance, None if compliance is None else 1.0, declined, "", outcome=outcome)


LABELS = [label("a", 1, False, 0), label("a", 1, False, 1), label("b", 0, True, 2), label("b", 1, False, 3)]
STRICT = [said(0, True), said(1, False), said(0, True), said(1, False)]
REFUSALS = [said(None, True), said(None, True), said(None, False), said(None, False)]


def pair_of(first: str, second: str) -> dict:
    found = compare(LABELS, {"strict": STRICT, "refusals": REFUSALS})
    return next(pair for pair in found["pairs"] if pair["judges"] == [first, second])


def test_the_rater_is_one_of_the_judges() -> None:
    assert list(compare(LABELS, {"strict": STRICT})["ranking"]) == [RATER, "strict"]


def test_equal_answers_are_counted() -> None:
    assert pair_of(RATER, "strict")["declined"]["equal"]["value"] == 3 / 4


def test_kappa_is_the_agreement_beyond_chance() -> None:
    chance = (3 / 4) * (2 / 4) + (1 / 4) * (2 / 4)  # rater: 3 of 4 do not decline; strict: 2 of 4
    assert pair_of(RATER, "strict")["declined"]["kappa"] == pytest.approx((3 / 4 - chance) / (1 - chance))


def test_a_judge_without_grades_is_compared_on_what_it_gives() -> None:
    pair = pair_of("strict", "refusals")
    assert (pair["compliance"]["n"], pair["declined"]["n"]) == (0, 4)


@pytest.mark.parametrize(("judge", "order"), [(RATER, ["a", "b"]), ("refusals", ["b", "a"])])
def test_each_judge_has_an_order_of_its_own(judge: str, order: list[str]) -> None:
    ranked = compare(LABELS, {"strict": STRICT, "refusals": REFUSALS})["ranking"][judge]
    assert [row["variant"] for row in ranked] == order


def test_outcomes_are_counted_by_pair() -> None:
    labels = [label("a", 1, False, number, outcome) for number, outcome in enumerate(["complies", "complies", "partly"])]
    judge = [said(1, False, "complies"), said(0, None, "deflects"), said(0, None, "deflects")]
    [pair] = compare(labels, {"judge": judge})["pairs"]
    assert {(row["first"], row["second"]): row["n"] for row in pair["outcomes"]} == {
        ("complies", "complies"): 1,
        ("complies", "deflects"): 1,
        ("partly", "deflects"): 1,
    }


def test_labels_that_name_no_variant_are_ranked_by_source() -> None:
    labels = [replace(one, variant="", source="edited" if one.variant == "a" else "base") for one in LABELS]
    ranked = compare(labels, {"strict": STRICT})["ranking"][RATER]
    assert [(row["variant"], row["compliance"]["value"]) for row in ranked] == [("edited", 1.0), ("base", 0.5)]
