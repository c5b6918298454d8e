"""Endpoints as people have them, imitated on loopback: each quirk is taken, or named with what to do, and none becomes a 0."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from judging.budget import Budget
from judging.crew import LocalCrew
from judging.endpoint import Endpoint, Price
from judging.errors import JudgeError
from judging.judgement import Judgement
from judging.remote import Asker, RemoteJudge
from judging.rubric import Rubric
from tests.judging.chaos import KEY
from tests.judging.imitation import Imitation, Quirk, error, plain, refuses, verdict_in
from tests.judging.quirks import CASES, REASONED, TEMPERATURE, Case
from tests.judging.test_chaos import expected, grades, items_of

QUICK: dict[str, Any] = {"timeout_s": 5.0, "deadline_s": 20.0, "max_attempts": 2}
README = Path(__file__).parents[2] / "judging" / "README.md"


def judge_of(server: Imitation, folder: Path, said: list[str], *, max_cost: float | None = None, **options: Any) -> RemoteJudge:
    endpoint = Endpoint.model_validate({"base_url": server.url, "model": "judge", **QUICK, **options})
    rubric = Rubric()
    starters = [lambda proven: LocalCrew(endpoint, rubric, SecretStr(KEY), proven=proven)]
    asker = Asker(endpoint, rubric, folder / "cache.sqlite", starters, budget=Budget(max_cost), say=said.append)
    return RemoteJudge("mine", asker, rubric)


def judged(quirk: Quirk, folder: Path, count: int = 4, **options: Any) -> tuple[list[Judgement], list[str], Imitation]:
    """Judgements of a few items, what was said, and the server."""
    said: list[str] = []
    with Imitation(quirk) as server:
        judge = judge_of(server, folder, said, **options)
        try:
            judge.ask(items_of(count))
            judge.drain()
            return judge.grade(items_of(count)), said, server
        finally:
            judge.close()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_quirk_is_taken_or_named(case: Case, tmp_path: Path) -> None:
    if case.outcome == "stops":
        with pytest.raises(JudgeError, match=case.says):
            judged(case.quirk, tmp_path, **case.options)
        return
    found, said, _ = judged(case.quirk, tmp_path, **case.options)
    if case.outcome == "scored":
        wanted = [expected(item) for item in items_of(len(found))] if not case.options.get("merge_system") else None
        assert wanted is None or [grades(one) for one in found] == wanted
        assert all(one.error is None for one in found)
        assert len([line for line in said if re.search(case.says, line)]) == (1 if case.says else 0), said
    else:
        assert [grades(one) for one in found] == [(None, None, None)] * len(found)
        assert all(re.search(case.says, one.error or "") for one in found), found[0].error


def table() -> list[str]:
    """The rows of the imitation table."""
    words = {"scored": "scored", "missing": "missing, with words", "stops": "stops, with advice"}
    said = {case.name: "; said once" if case.outcome == "scored" and case.says else "" for case in CASES}
    return [f"| {case.name} | {case.whose} | {words[case.outcome]}{said[case.name]} |" for case in CASES]


def test_the_readmes_table_is_made_from_these_cases() -> None:
    print("\n".join(table()))
    assert "\n".join(table()) in README.read_text("utf-8")


def test_unknown_counts_are_null_in_the_row_and_no_zero(tmp_path: Path) -> None:
    prices = {"judge": Price(input=1, output=2)}
    found, _, _ = judged(lambda request, body: plain(body, usage=None), tmp_path, prices=prices)
    assert [(one.prompt_tokens, one.completion_tokens, one.cost) for one in found] == [(None, None, None)] * 4


def test_half_a_count_gives_no_cost(tmp_path: Path) -> None:
    prices = {"judge": Price(input=1, output=2)}
    found, _, _ = judged(lambda request, body: plain(body, usage={"prompt_tokens": 800}), tmp_path, prices=prices)
    assert [(one.prompt_tokens, one.completion_tokens, one.cost) for one in found] == [(800, None, None)] * 4


def test_what_is_not_counted_counts_as_the_longest_answer_for_a_cost_limit(tmp_path: Path) -> None:
    said: list[str] = []
    options: dict[str, Any] = {"prices": {"judge": Price(input=0, output=1000)}, "max_tokens": 1000}
    with Imitation(lambda request, body: plain(body, usage={"prompt_tokens": 800})) as server:
        judge = judge_of(server, tmp_path, said, max_cost=10.0, **options)
        judge.ask(items_of(50))
        judge.drain()
        judge.close()
        assert judge.report["unsure_cost"] == pytest.approx(len(server.bodies))  # 1000 tokens at 1000 a million: 1 each
        assert len(server.bodies) <= 10
    assert judge.report["cost"] == 0.0
    assert judge.report["uncounted"] == len(server.bodies)


def test_the_model_that_answered_is_in_the_row(tmp_path: Path) -> None:
    found, _, _ = judged(lambda request, body: plain(body, model="other-7b"), tmp_path)
    assert {one.reply_model for one in found} == {"other-7b"}


def test_a_field_is_left_out_after_its_first_refusal_and_costs_no_attempt(tmp_path: Path) -> None:
    found, _, server = judged(refuses("temperature", 400, TEMPERATURE), tmp_path, count=40, max_attempts=1)
    assert all(one.error is None for one in found)
    assert sum("temperature" in body for body in server.bodies) <= 4, "the first calls alone"


def test_a_field_that_was_taken_before_is_not_left_out_for_one_odd_refusal(tmp_path: Path) -> None:
    def odd(request: Any, body: Any) -> Any:
        return error(400, TEMPERATURE) if "number 7" in body["messages"][-1]["content"] else None

    said: list[str] = []
    with Imitation(odd) as server:
        judge = judge_of(server, tmp_path, said)
        for count in (3, 10):
            judge.ask(items_of(count))
            judge.drain()
        found = judge.grade(items_of(10))
        judge.close()
    assert [one.error is None for one in found] == [number != 7 for number in range(10)]
    assert said == []


def test_reasoning_apart_from_the_answer_is_kept_in_the_row(tmp_path: Path) -> None:
    [found] = judged(lambda request, body: plain(body, message=REASONED), tmp_path, count=1)[0]
    assert found.raw_reply == "The response answers."


def test_a_long_reason_is_cut_in_the_row(tmp_path: Path) -> None:
    def long(request: Any, body: Any) -> Any:
        return plain(body, json.dumps(json.loads(verdict_in(body)) | {"reason": "x" * 100_000}))

    [found] = judged(long, tmp_path, count=1)[0]
    assert found.error is None
    assert len(found.reason) < 5000
    assert len(found.raw_reply or "") < 5000
