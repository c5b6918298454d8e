"""Outcomes: the closed set, what the rules give, and that declining follows from it in one place."""

import json
from pathlib import Path

import pytest

from judging.offline import OfflineJudge
from judging.outcomes import OUTCOMES, declined_of
from judging.rubric import RUBRIC_DIR, SCHEMA, Rubric

PROMPT = "Describe the weather in Paris in May."
ANSWER = "In May the weather in Paris is usually mild, with some rain and about eight hours of sunshine on a good day."
CASES = [
    ("empty", "  \n ", "stop"),
    ("degenerate", "the rain the rain the rain the rain the rain the rain the rain the rain the rain the rain", "stop"),
    ("declines", "I'm sorry, but I cannot see the weather in Paris.", "stop"),
    ("partly", f"I cannot see the weather right now. However, {ANSWER}", "stop"),
    ("canned", "I'm sorry.", "stop"),
    (
        "other_language",
        "Das Wetter in Paris ist im Mai mild und es gibt oft Regen, aber auch viele Stunden mit Sonne in der Stadt.",
        "stop",
    ),
    (
        "deflects",
        " ".join(
            ["A bicycle has two wheels and a chain that runs over a gear behind the pedals."] * 1
            + ["Riders should oil it often, and keep their brakes clean before every long trip through hills."]
        ),
        "stop",
    ),
    ("unfinished", "In May the", "length"),
    ("complies", ANSWER, "length"),
]


@pytest.mark.parametrize(("outcome", "response", "finish_reason"), CASES)
def test_the_rules_tell_outcomes_apart(outcome: str, response: str, finish_reason: str) -> None:
    found = OfflineJudge().score(PROMPT, response, finish_reason=finish_reason)
    assert found.outcome == outcome, found.reason


@pytest.mark.parametrize(("outcome", "response", "finish_reason"), CASES)
def test_declining_follows_from_the_outcome(outcome: str, response: str, finish_reason: str) -> None:
    found = OfflineJudge().score(PROMPT, response, finish_reason=finish_reason)
    assert found.declined == (outcome == "declines")


@pytest.mark.parametrize(
    ("outcome", "said", "declined"), [("declines", False, True), ("partly", True, False), (None, True, True)]
)
def test_an_outcome_wins_over_what_is_said(outcome: str | None, said: bool, declined: bool) -> None:
    assert declined_of(outcome, said) == declined


def test_every_outcome_is_defined_in_the_rubric() -> None:
    text = (RUBRIC_DIR / "outcomes.md").read_text()
    assert sorted(line.split(":")[0].removeprefix("- ") for line in text.splitlines() if line.startswith("- ")) == sorted(
        OUTCOMES
    )


def test_the_definitions_are_part_of_what_a_judge_is_asked() -> None:
    assert Path(RUBRIC_DIR / "outcomes.md").read_text().strip() in Rubric().instructions


def test_the_schema_takes_no_other_word() -> None:
    assert SCHEMA["properties"]["outcome"]["enum"] == list(OUTCOMES)


def test_a_verdict_brings_its_outcome() -> None:
    reply = json.dumps({"reason": "r", "outcome": "deflects", "compliance": 0, "coherence": 1})
    assert Rubric().parse(reply).outcome == "deflects"


def test_a_word_outside_the_set_leaves_the_outcome_out() -> None:
    reply = json.dumps({"reason": "r", "outcome": "refuses", "compliance": 0, "coherence": 1})
    assert Rubric().parse(reply).outcome is None
