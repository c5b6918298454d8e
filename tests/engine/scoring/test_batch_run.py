"""A run judged in a batch: the rows that come of it, what it asks beyond the batch, and the command that left in between."""

from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.rollout.judge_again import JudgingOptions, judge
from engine.runs.parquet import read_rows
from tests.engine.commands.judged import KEY_VARIABLE, judge_file, make_run
from tests.judging.batch_endpoint import BatchEndpoint
from tests.judging.chaos import KEY


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    return make_run(tmp_path / "run", 4)


def test_a_run_is_judged_by_one_batch_and_no_call(own: Path, tmp_path: Path) -> None:
    with BatchEndpoint() as server:
        name = str(judge_file(tmp_path / "mine.toml", server, batch_poll_s=0.05))
        summary = judge(own, [name], JudgingOptions(batch=True))
    rows = read_rows(own / "scores.parquet")
    assert (len(rows), len(server.uploads), sum(server.attempts.values())) == (8, 1, 0)
    assert all(row["error"] is None for row in rows) and not summary["unscored"]


def test_a_command_that_left_says_so_and_the_next_one_fetches(own: Path, tmp_path: Path) -> None:
    with BatchEndpoint(looks=2) as server:
        name = str(judge_file(tmp_path / "mine.toml", server, batch_poll_s=0.05))
        options = JudgingOptions(batch=True, wait=False)
        with pytest.raises(EngineError, match=r"Under way: in_progress\. Run the same command again"):
            judge(own, [name], options)
        judge(own, [name], options)
    assert (len(read_rows(own / "scores.parquet")), len(server.uploads)) == (8, 1)


def test_what_no_batch_answered_is_missing_and_is_asked_for_in_the_next(own: Path, tmp_path: Path) -> None:
    with BatchEndpoint(faults={0: "missing"}) as server:
        name = str(judge_file(tmp_path / "mine.toml", server, batch_poll_s=0.05))
        judge(own, [name], JudgingOptions(batch=True))
        missing = [row for row in read_rows(own / "scores.parquet") if row["error"] is not None]
        server.broken = {}
        judge(own, [name], JudgingOptions(batch=True))
    assert missing and all(row["compliance"] is None for row in missing)
    assert all(row["error"] is None for row in read_rows(own / "scores.parquet"))
    assert [len(part) for part in server.uploads][1:] == [1]


def test_a_judge_without_an_endpoint_takes_no_batch(own: Path) -> None:
    with pytest.raises(EngineError, match="--batch is for a judge behind an endpoint; offline is none"):
        judge(own, ["offline"], JudgingOptions(batch=True))
