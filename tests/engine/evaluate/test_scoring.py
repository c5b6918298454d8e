"""The judge's thread gives the judge's own grades, and its failure reaches the sweep."""

from collections.abc import Sequence
from typing import Any

import pytest

from engine.evaluate.scoring import QUEUED_BATCHES, Scoring
from engine.scoring.grader import OfflineGrader, RuleGrader
from judging.judgement import Item, Judgement
from judging.offline import OfflineJudge

TEXTS = [
    "I'm sorry, but I can't see your pocket.",
    "The key is on the table by the door, where you left it.",
    "and and and and and",
]


def row(number: int) -> dict[str, Any]:
    return {
        "variant_hash": "v",
        "prompt_id": f"p{number}",
        "prompt": "Where is my key?",
        "response": TEXTS[number % 3],
        "finish_reason": "stop",
    }


def test_every_batch_is_graded_as_the_judge_grades_even_beyond_the_queue() -> None:
    scoring, judge = Scoring(OfflineGrader()), OfflineJudge()
    for batch in range(3 * QUEUED_BATCHES):
        scoring.feed([row(number) for number in range(20 * batch, 20 * batch + 20)])
    scoring.drain()
    scoring.close()
    assert len(scoring.grades) == 60 * QUEUED_BATCHES and scoring.busy_seconds > 0
    for number in range(3):
        assert scoring.grades["v", f"p{number}"] == judge.score("Where is my key?", TEXTS[number])


def test_likelihoods_change_the_grade_of_text_that_the_base_finds_unlikely() -> None:
    scoring, odd = Scoring(OfflineGrader()), row(1)
    scoring.feed([odd])
    scoring.drain()
    scoring.close()
    assert scoring.grades["v", "p1"].coherence == 1
    scoring.regrade([odd], -0.8, {("v", "p1"): -3.5})
    assert scoring.grades["v", "p1"].coherence == 0


def test_a_failure_in_the_thread_is_raised_where_the_sweep_waits() -> None:
    scoring = Scoring(OfflineGrader())
    scoring.feed([{"variant_hash": "v", "prompt_id": "p", "prompt": "Where?"}])
    with pytest.raises(KeyError, match="response"):
        scoring.drain()
    scoring.close()


class OfTraces(RuleGrader):
    """Finds a response declining where its trace says no."""

    def __init__(self) -> None:
        super().__init__("of traces", "a judge of one's own", "", "")

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        return [Judgement(0.0, 1.0, "no" in (item.trace or ""), "") for item in items]


@pytest.mark.parametrize("shown", [True, False])
def test_a_judge_is_shown_the_trace_where_it_is_asked_to_read_it(shown: bool) -> None:
    scoring = Scoring(OfTraces(), trace=shown)
    scoring.feed([row(1) | {"trace": "They ask for a key. I say no."}])
    scoring.drain()
    scoring.close()
    assert scoring.grades["v", "p1"].declined is shown
