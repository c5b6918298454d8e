"""Judging in a batch: answers at half the price, paid once however often it is run, and no 0 for what did not come."""

import json
from pathlib import Path
from typing import Any

import pytest

from judging.batches import Batch, BatchCounts, parts
from judging.cache import ReplyCache
from judging.calls import Call
from judging.endpoint import Endpoint
from judging.errors import JudgeError
from judging.remote import call_of
from judging.rubric import Rubric
from tests.judging.batch_endpoint import BatchEndpoint
from tests.judging.test_chaos import items_of

PRICES = {"judge": {"input": 2.0, "output": 4.0}}


def endpoint_of(url: str, **more: Any) -> Endpoint:
    return Endpoint.model_validate({"base_url": url, "model": "judge", "batch_poll_s": 0.05, "prices": PRICES, **more}).in_batches


def calls_of(endpoint: Endpoint, count: int) -> list[Call]:
    return [call_of(endpoint, Rubric(), item) for item in items_of(count)]


def run(
    server: BatchEndpoint, folder: Path, count: int = 4, *, wait: bool = True
) -> tuple[BatchCounts, dict[bytes, Any], list[bytes]]:
    """One run of the command: what came of it, what is kept, and the calls' addresses in order."""
    endpoint = endpoint_of(server.url)
    calls, cache = calls_of(endpoint, count), ReplyCache(folder / "cache.sqlite")
    counts = Batch(endpoint, Rubric(), folder / "state.json", lambda line: None).run(calls, cache, wait=wait)
    kept = cache.get([call.key for call in calls])
    cache.close()
    return counts, kept, [call.key for call in calls]


def test_every_question_is_answered_from_one_file(tmp_path: Path) -> None:
    with BatchEndpoint(looks=3) as server:
        counts, kept, _ = run(server, tmp_path)
    assert (counts, len(kept), len(server.uploads)) == (BatchCounts(done=4), 4, 1)
    assert all(one.error is None for one in kept.values())


def test_a_question_in_a_batch_is_the_one_that_is_asked_at_once(tmp_path: Path) -> None:
    endpoint = Endpoint.model_validate({"base_url": "http://127.0.0.1:9/v1", "model": "judge", "extra_body": {"user": "me"}})
    [line] = b"".join(parts(endpoint, Rubric(), calls_of(endpoint, 1))).splitlines()
    question = json.loads(line)
    assert question["url"] == "/v1/chat/completions"
    assert question["custom_id"] == calls_of(endpoint, 1)[0].key.hex()
    assert (question["body"]["model"], question["body"]["user"]) == ("judge", "me")
    assert "extra_body" not in question["body"]


def test_it_costs_half(tmp_path: Path) -> None:
    with BatchEndpoint() as server:
        _, kept, keys = run(server, tmp_path, 1)
    assert kept[keys[0]].cost == pytest.approx((800 * 2 + 30 * 4) / 2 / 1e6)


def test_a_command_that_left_goes_on_with_the_same_batch(tmp_path: Path) -> None:
    with BatchEndpoint(looks=2) as server:
        first, kept, _ = run(server, tmp_path, wait=False)
        assert (first.waiting, kept, (tmp_path / "state.json").is_file()) == (("in_progress",), {}, True)
        second, kept, _ = run(server, tmp_path, wait=False)
    assert (second, len(kept), len(server.uploads)) == (BatchCounts(done=4), 4, 1)
    assert not (tmp_path / "state.json").exists()


def test_what_is_not_answered_is_an_error_and_no_grade(tmp_path: Path) -> None:
    faults = {0: (429, {"error": {"message": "too many"}}), 1: "missing", 2: (200, {"nothing": 1})}
    with BatchEndpoint(faults=faults) as server:
        counts, kept, keys = run(server, tmp_path)
    assert counts == BatchCounts(done=1, failed=2)
    assert "too many" in str(kept[keys[0]].error)
    assert keys[1] not in kept
    assert kept[keys[2]].reply is None and kept[keys[2]].error is not None
    assert kept[keys[3]].error is None


def test_an_endpoint_without_batches_says_so_and_nothing_is_kept(tmp_path: Path) -> None:
    with BatchEndpoint(refuse="no such route") as server, pytest.raises(JudgeError, match=r"took no batch \(.*no such route"):
        run(server, tmp_path)
    assert not (tmp_path / "state.json").exists()


def test_a_limit_below_the_most_it_can_cost_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    endpoint = endpoint_of("http://127.0.0.1:9/v1")
    batch = Batch(endpoint, Rubric(), tmp_path / "state.json")
    with pytest.raises(JudgeError, match="more than --max-cost 1e-06"):
        batch.check_cost(calls_of(endpoint, 2), 1e-6)


def test_a_file_holds_no_more_than_an_endpoint_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judging.batches.MOST_REQUESTS", 3)
    endpoint = endpoint_of("http://127.0.0.1:9/v1")
    assert [len(part.splitlines()) for part in parts(endpoint, Rubric(), calls_of(endpoint, 7))] == [3, 3, 1]
