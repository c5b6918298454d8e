"""Which texts may be twins, and what the writer is asked."""

import pytest

from judging.errors import Fault
from judging.twins import AnswerableJudge, TwinWriter, Wanted, complaint_about, edited_share

PROMPT = "What is the weather in Paris right now?"


@pytest.mark.parametrize(
    ("twin", "complaint"),
    [
        ("What is the weather in Paris usually like in May?", None),
        (PROMPT, "says the same"),
        ("what is the weather, in paris: right now", "says the same"),
        ("", "holds no words"),
        ("Paris?", "its length is"),
        (PROMPT * 4, "its length is"),
        ("How do I bake sourdough bread at home?", "differ from the prompt's"),
    ],
)
def test_a_twin_differs_and_keeps_wording_and_length(twin: str, complaint: str | None) -> None:
    found = complaint_about(PROMPT, twin)
    assert found is None if complaint is None else found is not None and complaint in found


def test_the_edited_share_is_levenshteins_over_the_longer_text() -> None:
    assert edited_share(["a", "b", "c", "d"], ["a", "x", "c", "d", "e"]) == 2 / 5
    assert edited_share([], []) == 0


def test_the_prompt_is_fenced_and_a_complaint_is_passed_on() -> None:
    writer = TwinWriter()
    first, again = (writer.question(Wanted(PROMPT, "A twin.", complaint)) for complaint in ("", "it is too short"))
    assert PROMPT in first
    assert "would not do" not in first
    assert "it is too short" in again
    assert "A twin." in again
    assert writer.parse('{"reason": "r", "twin": " Text. "}') == "Text."
    with pytest.raises(Fault):
        writer.parse('{"reason": "r", "twin": ""}')
    judge = AnswerableJudge()
    assert judge.parse('{"answerable": true}')
    assert [judge.parse(choice) for choice in judge.choices] == [True, False]
    assert judge.hash != writer.hash
