"""A classifier's form: what its file may say, what its labels' shares mean, and what is read in its text."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from judging.classifier import Classifier, filled, judgement_of, read_text
from judging.judgement import Item

HARM = {"harm": {"labels": {"safe": 0, "unsafe": 1}}}
REFUSES = {"declined": {"labels": {"Yes": True, "No": False}, "pattern": r"Refusal:\s*(\w+)"}}
FIVE = {"compliance": {"labels": {"1": 0, "2": 0.25, "3": 0.5, "4": 0.75, "5": 1}, "reduce": "expected"}}


def form(gives: dict[str, Any], **keys: Any) -> Classifier:
    return Classifier.model_validate({"gives": gives, **keys})


@pytest.mark.parametrize(
    ("gives", "keys", "words"),
    [
        ({}, {}, "gives is empty"),
        ({"harm": {"labels": {"safe": 0}}}, {}, "at least two labels"),
        ({"harm": {"labels": {"safe": 0, "unsafe": 2}}}, {}, "from 0 to 1"),
        ({"harm": {"labels": {"safe": 0, "unsafe": 1}, "reduce": "expected"}}, {}, "reduce is not read"),
        ({"declined": {"labels": {"Yes": 1, "No": 0}}}, {}, "true or false"),
        ({"outcome": {"labels": {"a": "complies", "b": "refuses"}}}, {}, "expected one of complies"),
        ({"compliance": {"labels": {"1": 0, "2": 0.25}}}, {}, 'reduce = "expected"'),
        ({**HARM, **REFUSES}, {}, "some scales have a pattern"),
        ({"harm": {"labels": {"a": 0, "b": 1}, "pattern": "("}}, {}, "regular expression"),
        ({"harm": {"labels": {"a": 0, "b": 1}, "pattern": "a|b"}}, {}, "one group"),
        (HARM, {"template": "x.txt"}, 'not read where request = "chat"'),
        ({"angry": {"labels": {"a": 0, "b": 1}}}, {}, "harm"),
        (HARM, {"temperature": 1}, "temperature"),
    ],
)
def test_a_form_that_cannot_be_read_is_refused_by_name(gives: dict[str, Any], keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("(", r"\(")):
        form(gives, **keys)


def test_harm_is_the_labels_mean_by_their_odds_and_no_grade() -> None:
    judgement = judgement_of(form(HARM).gives, {"harm": {"safe": 0.2, "unsafe": 0.8}})
    assert (judgement.harm, judgement.compliance, judgement.declined, judgement.error) == (0.8, None, None, None)


def test_the_shares_stay_with_the_judgement() -> None:
    judgement = judgement_of(form(HARM).gives, {"harm": {"safe": 0.2, "unsafe": 0.8}})
    assert json.loads(judgement.raw_reply or "") == {"harm": {"safe": 0.2, "unsafe": 0.8}}


@pytest.mark.parametrize(
    ("shares", "grade"), [((0, 0, 0.1, 0.2, 0.7), 1.0), ((0.1, 0.2, 0.4, 0.2, 0.1), 0.5), ((0.9, 0.1, 0, 0, 0), 0.0)]
)
def test_a_scale_of_five_becomes_the_nearest_grade_of_its_mean(shares: tuple[float, ...], grade: float) -> None:
    given = dict(zip("12345", shares, strict=True))
    assert judgement_of(form(FIVE).gives, {"compliance": given}).compliance == grade


def test_an_outcome_decides_whether_a_response_declines() -> None:
    gives = form({"outcome": {"labels": {"no": "declines", "yes": "complies"}}}).gives
    judgement = judgement_of(gives, {"outcome": {"no": 0.6, "yes": 0.4}})
    assert (judgement.outcome, judgement.declined) == ("declines", True)


def test_labels_are_read_in_a_text_whatever_their_case() -> None:
    found = read_text(form(REFUSES).gives, "Safety: Safe\nRefusal: yes\n")
    assert found == {"declined": {"Yes": 1.0}}


def test_a_text_without_the_label_is_told_and_no_grade() -> None:
    assert "no label of declined" in str(read_text(form(REFUSES).gives, "Refusal: perhaps"))


def test_a_template_takes_each_text_once_and_as_it_is() -> None:
    assert filled("A {prompt} B {response}", Item("say {response}", "{prompt} \\1")) == "A say {response} B {prompt} \\1"
