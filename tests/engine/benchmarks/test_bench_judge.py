"""What bin/bench-judge measures with: a mock that keeps its capacity, and a run whose every answer is cached."""

import time
from pathlib import Path

from engine.benchmarks.judge import make_run, measure_cached, mock, read_cached
from judging.crew import LocalCrew
from judging.endpoint import Endpoint
from judging.judgement import Item
from judging.remote import Asker, RemoteJudge
from judging.rubric import Rubric


def test_the_mock_answers_no_faster_than_its_slots_allow(tmp_path: Path) -> None:
    with mock(4) as url:
        endpoint, rubric = Endpoint(base_url=url, model="mock"), Rubric()
        starters = [lambda proven: LocalCrew(endpoint, rubric, None, proven=proven)]
        judge = RemoteJudge("mock", Asker(endpoint, rubric, tmp_path / "cache.sqlite", starters), rubric)
        items = [Item(f"Question {number}?", "Answer.") for number in range(40)]
        started = time.monotonic()
        judge.ask(items)
        judge.drain()
        seconds = time.monotonic() - started
        assert all(one.compliance == 1 for one in judge.grade(items))
        judge.close()
    print(f"40 calls in {seconds:.2f} s; 4 slots of 0.2 s allow 2.0 s")
    assert seconds >= 1.95


def test_cached_rows_are_read_without_a_call_and_memory_is_a_fresh_process_own(tmp_path: Path) -> None:
    make_run(tmp_path, 1500)
    found = read_cached(tmp_path)
    in_a_fresh_process = measure_cached(10)
    print(found, in_a_fresh_process)
    assert found["rows_per_second"] > 0 and 50 < in_a_fresh_process["peak_rss_mb"] < 400
