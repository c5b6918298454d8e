"""The fan-out against an endpoint that fails in every way: nothing lost, nothing zeroed, nothing paid twice, and it ends."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from judging.budget import Budget
from judging.crew import LocalCrew
from judging.endpoint import Endpoint, Price
from judging.errors import JudgeError
from judging.judgement import Item, Judgement
from judging.remote import Asker, RemoteJudge
from judging.rubric import Rubric
from tests.judging.chaos import FAULTS, KEY, Chaos, verdict_on
from tests.waiting import wait_for

QUICK = {"timeout_s": 2.5, "deadline_s": 30.0, "max_concurrency": 64}


def items_of(count: int) -> list[Item]:
    return [Item(f"Prompt number {number}?", f"Response number {number}.", "stop") for number in range(count)]


def judge_at(chaos: Chaos, folder: Path, *, max_cost: float | None = None, **options: Any) -> RemoteJudge:
    endpoint = Endpoint(base_url=chaos.url, model="judge", **QUICK | options)
    rubric = Rubric()
    starters = [lambda proven: LocalCrew(endpoint, rubric, SecretStr(KEY), proven=proven)]
    asker = Asker(endpoint, rubric, folder / "cache.sqlite", starters, budget=Budget(max_cost))
    return RemoteJudge("chaos", asker, rubric)


def run(judge: RemoteJudge, items: list[Item]) -> list[Judgement]:
    judge.ask(items)
    judge.drain()
    return judge.grade(items)


def grades(judgement: Judgement) -> tuple[Any, ...]:
    return judgement.compliance, judgement.coherence, judgement.declined


def expected(item: Item) -> tuple[Any, ...]:
    verdict = verdict_on(Rubric().question(item))
    return verdict["compliance"], verdict["coherence"], verdict["declined"]


@pytest.fixture
def chaos() -> Iterator[Chaos]:
    with Chaos() as server:
        yield server


def test_a_mix_of_every_fault_loses_nothing_and_zeroes_nothing(tmp_path: Path) -> None:
    items = items_of(400)
    with Chaos(share=0.3, latency_s=0.01) as server:
        judge = judge_at(server, tmp_path)
        found = run(judge, items)
        judge.close()
        print_table(server, items, found)
        assert set(server.hit) == set(FAULTS)
        assert sum(server.hit.values()) / sum(server.attempts.values()) == pytest.approx(0.3, abs=0.05)
        assert max(server.delivered.values()) == 1, "a call was paid twice after a success"
        for item, judgement in zip(items, found, strict=True):
            if judgement.error is None:
                assert grades(judgement) == expected(item)
            else:
                assert grades(judgement) == (None, None, None)
        marked = [judgement for judgement in found if judgement.error is not None]
        assert 0 < len(marked) < 40
        assert not any(KEY in f"{judgement.error}{judgement.raw_reply}" for judgement in marked)
        assert judge.report["done"] == len(items) - len(marked)
        assert judge.report["failed"] == len(marked)


def print_table(server: Chaos, items: list[Item], found: list[Judgement]) -> None:
    """The chaos table of the README: how often each fault struck, and what became of the rows it struck."""
    rubric = Rubric()
    scored: Counter[str] = Counter()
    struck: Counter[str] = Counter()
    for item, judgement in zip(items, found, strict=True):
        for fault in set(server.faults_of.get(rubric.question(item), [])):
            struck[fault] += 1
            scored[fault] += judgement.error is None
    print(f"{len(items)} rows, {sum(server.attempts.values())} attempts, {sum(server.hit.values())} of them failed")
    for fault in FAULTS:
        print(f"{fault:24} struck {struck[fault]:3} rows, scored in the end {scored[fault]:3}")


def test_the_next_run_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    items = items_of(300)
    with Chaos(share=0.3, latency_s=0.005, faults=("refusal to judge", "empty content", "500")) as server:
        rounds = 0
        missing = len(items)
        while missing and rounds < 12:
            before, rounds = Counter(server.delivered), rounds + 1
            judge = judge_at(server, tmp_path)
            found = run(judge, items)
            judge.close()
            now = sum(judgement.error is not None for judgement in found)
            assert judge.report["cached"] == len(items) - missing
            assert (server.delivered - before).total() == missing - now
            missing = now
        assert missing == 0
        assert max(server.delivered.values()) == 1
        assert [grades(judgement) for judgement in found] == [expected(item) for item in items]


def test_identical_requests_share_one_call_and_repeats_do_not(chaos: Chaos, tmp_path: Path) -> None:
    chaos.latency_s = 0.05
    items = items_of(5) * 40 + [Item("Prompt number 0?", "Response number 0.", "stop", repeat=1)]
    judge = judge_at(chaos, tmp_path)
    found = run(judge, items)
    judge.close()
    assert chaos.attempts.total() == 6
    assert len(found) == 201
    assert [grades(one) for one in found] == [expected(item) for item in items]
    assert judge.report["shared"] + judge.report["cached"] == 195


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("latency", "slow drip", "disconnect in mid-body")])
def test_each_fault_alone_ends_in_a_marked_row_and_never_in_a_zero(fault: str, tmp_path: Path) -> None:
    with Chaos(share=1.0, faults=(fault,)) as server:
        judge = judge_at(server, tmp_path, max_attempts=2, deadline_s=2.0, breaker_failures=1000)
        [found] = run(judge, items_of(1))
        judge.close()
        assert grades(found) == (None, None, None)
        assert found.error
        assert KEY not in found.error
        assert found.attempts >= 1
        assert server.delivered.total() == 0
        if fault in ("wrong grade", "missing grade", "over-long reply"):
            assert found.raw_reply
            assert found.raw_reply.startswith('{"reason"')
        print(f"{fault}: {found.error}")


def test_a_slow_drip_ends_at_the_timeout_though_bytes_keep_coming(tmp_path: Path) -> None:
    with Chaos(share=1.0, faults=("slow drip",)) as server:
        judge = judge_at(server, tmp_path, timeout_s=0.6, max_attempts=1)
        [found] = run(judge, items_of(1))
        judge.close()
        assert found.error == "passing: no complete answer within 0.6 s"


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    with Chaos(share=1.0, faults=("429 with Retry-After",), retry_after="1.5") as server:
        judge = judge_at(server, tmp_path)
        judge.ask(items_of(1))
        wait_for(lambda: bool(server.times))
        server.share = 0.0
        judge.drain()
        judge.close()
        first, second = server.times
        assert second - first >= 1.5


@pytest.mark.parametrize(("retry_after", "deadline_s"), [("86400", 5.0), ("0.05", 0.5)])
def test_an_endpoint_that_is_busy_for_longer_than_a_call_may_take_stops_the_run(
    retry_after: str, deadline_s: float, tmp_path: Path
) -> None:
    with Chaos(share=1.0, faults=("429 with Retry-After",), retry_after=retry_after) as server:
        judge = judge_at(server, tmp_path, deadline_s=deadline_s)
        judge.ask(items_of(300))
        started = time.monotonic()
        with pytest.raises(JudgeError, match=r"takes nothing within .* HTTP 429"):
            judge.drain()
        judge.close()
        assert time.monotonic() - started < 10


def test_rows_that_are_refused_one_by_one_do_not_stop_the_others(tmp_path: Path) -> None:
    items = items_of(60)
    with Chaos(faults=("400",)) as server:
        rubric = Rubric()
        server.always = {rubric.question(item): "400" for item in items[:20]}
        for expected_cached in (0, 40):
            judge = judge_at(server, tmp_path)
            found = run(judge, items)
            judge.close()
            assert [one.error is not None for one in found] == [True] * 20 + [False] * 40
            assert judge.stopped is None
            assert judge.report["cached"] == expected_cached
            assert all(one.error and one.error.startswith("refused: HTTP 400") for one in found[:20])


def test_half_a_surrogate_pair_in_a_reply_is_kept_as_a_question_mark(tmp_path: Path) -> None:
    with Chaos(share=1.0, faults=("surrogate",)) as server:
        judge = judge_at(server, tmp_path)
        [found] = run(judge, items_of(1))
        judge.close()
        assert found.compliance is not None
        assert found.reason == "cut: ?"
        assert (found.raw_reply or "").encode("utf-8")


def test_an_endpoint_that_goes_down_stops_the_run_with_what_is_done(tmp_path: Path) -> None:
    items = items_of(400)
    with Chaos(latency_s=0.02) as server:
        judge = judge_at(server, tmp_path, max_concurrency=8, breaker_failures=10, breaker_s=0.5, max_attempts=3)
        judge.ask(items)
        wait_for(lambda: server.delivered.total() >= 60)
        server.share, server.faults = 1.0, ("502",)
        judge.drain()
        found = judge.grade(items)
        judge.close()
        done = [one for one in found if one.error is None]
        assert judge.stopped is not None
        assert "the endpoint is down" in judge.stopped
        assert "HTTP 502" in judge.stopped
        assert 60 <= len(done) == server.delivered.total() < 400
        assert all("not asked" in one.error or "502" in one.error or "down" in one.error for one in found if one.error)


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "the key was not accepted: HTTP 401: no"), (404, "no such model or address: HTTP 404: no"), (400, "HTTP 400: no")],
)
def test_an_endpoint_that_refuses_everything_is_told_once(
    chaos: Chaos, tmp_path: Path, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiohttp import web

    async def refuse(*arguments: Any) -> web.Response:
        return web.json_response({"error": {"message": "no"}}, status=status)

    monkeypatch.setattr(chaos, "reply", refuse)
    judge = judge_at(chaos, tmp_path)
    judge.ask(items_of(500))
    with pytest.raises(JudgeError) as raised:
        judge.drain()
    judge.close()
    assert str(raised.value).count(message) == 1
    assert chaos.attempts.total() <= 8


def test_a_cost_limit_is_never_exceeded(chaos: Chaos, tmp_path: Path) -> None:
    chaos.latency_s = 0.01
    items = items_of(2000)
    price = {"judge": Price(input=1000, output=1000)}  # 100 + 10 tokens a call: 0.11
    judge = judge_at(chaos, tmp_path, max_cost=60.0, prices=price, max_attempts=2, max_tokens=20)
    found = run(judge, items)
    judge.close()
    spent = 0.11 * chaos.attempts.total()
    assert judge.stopped == "another call could exceed the cost limit of 60; raise --max-cost to go on"
    assert 30 < spent <= 60
    assert judge.report["cost"] == pytest.approx(spent)
    assert sum(one.error is None for one in found) == chaos.delivered.total() < 2000
    with pytest.raises(JudgeError, match="needs a price for the model 'judge'"):
        judge_at(chaos, tmp_path, max_cost=1.0)


def test_one_budget_holds_for_two_judges_and_a_stop_by_cost_is_no_error(chaos: Chaos, tmp_path: Path) -> None:
    price = {"judge": Price(input=1000, output=1000)}
    endpoint = Endpoint(base_url=chaos.url, model="judge", prices=price, max_attempts=1, max_tokens=20, **QUICK)
    budget, rubric = Budget(30.0), Rubric()
    for number in range(3):
        starters = [lambda proven: LocalCrew(endpoint, rubric, None, proven=proven)]
        judge = RemoteJudge("chaos", Asker(endpoint, rubric, tmp_path / f"{number}.sqlite", starters, budget=budget), rubric)
        run(judge, items_of(200))
        judge.close()
        assert budget.spent == pytest.approx(0.11 * chaos.attempts.total())
        assert budget.spent <= 30
    assert judge.stopped
    assert judge.report["done"] == 0


def test_rows_that_share_a_call_cost_it_once(chaos: Chaos, tmp_path: Path) -> None:
    judge = judge_at(chaos, tmp_path, prices={"judge": Price(input=1000, output=1000)})
    found = run(judge, items_of(3) * 4)
    judge.close()
    assert sum(one.cost or 0 for one in found) == pytest.approx(0.11 * 3)
    assert all(one.cost is not None for one in found)


def test_the_key_travels_in_the_header_alone(chaos: Chaos, tmp_path: Path) -> None:
    judge = judge_at(chaos, tmp_path)
    run(judge, items_of(3))
    judge.close()
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in chaos.headers)
    assert not any(KEY in message["content"] for messages in chaos.questions for message in messages)
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.iterdir())
