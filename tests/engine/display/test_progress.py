"""Progress: what is counted, and that no time left is named before there is something to estimate from."""

import pytest

from engine.display import progress
from engine.display.progress import Job, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_the_first_prompt_of_a_slow_first_batch_gives_no_estimate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("directions", 512, "prompts")
    clock.now = 28.0
    bar.advance()
    assert capsys.readouterr().err == "directions: 1/512 prompts\n"


def test_more_than_two_batches_give_one(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("directions", 512, "prompts")
    for batch in (1, 2, 3):
        clock.now = 30.0 * batch
        for _ in range(64):
            bar.advance()
    assert capsys.readouterr().err.splitlines()[-1] == "directions: 129/512 prompts, 267 s left"


def test_a_batch_that_comes_at_once_is_one_report(clock: Clock) -> None:
    bar = Progress("directions", 512, "prompts")
    clock.now = 28.0
    bar.advance(64)
    assert bar.seconds_left(28.0) is None


def test_a_few_rows_of_many_give_no_estimate(clock: Clock) -> None:
    bar = Progress("rollouts", 1000)
    for second in range(1, 30):
        clock.now = float(second)
        bar.advance()
    assert bar.seconds_left(clock.now) is None


def test_the_last_line_says_how_long_it_took(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("rollouts", 2) as bar:
        clock.now = 4.0
        bar.advance(2, 100)
    assert capsys.readouterr().err == "rollouts: 2/2 rows, 25 tokens/s, 4.0 s\n"


def test_a_log_gets_its_first_line_soon_and_then_one_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("rollouts", 1000)
    for second in range(1, 200):
        clock.now = float(second)
        bar.advance()
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "rollouts: 10/1000 rows",
        "rollouts: 70/1000 rows",
        "rollouts: 130/1000 rows",
        "rollouts: 190/1000 rows",
    ]


def test_a_stage_says_how_far_the_whole_job_is(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Job({"first": 30.0, "second": 60.0, "third": 10.0}):
        with Progress("first", 2) as bar:
            clock.now = 30.0
            bar.advance(2)
        capsys.readouterr()
        second = Progress("second", 60)
        for row in range(1, 31):
            clock.now = 30.0 + row
            second.advance()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "second: 10/60 rows, 50 s left, job 40 %, 60 s left"


def test_a_pace_that_was_not_expected_corrects_the_rest(clock: Clock) -> None:
    with Job({"first": 10.0, "second": 10.0}) as job:
        assert job.state("first", 5, 10, 10.0) == (0.25, 30.0)  # twice as slow: 15 s of expected work are left


def test_a_stage_that_was_to_take_no_time_says_nothing_of_the_rest(clock: Clock) -> None:
    with Job({"first": 0.0, "second": 10.0}) as job:
        found = job.state("first", 1, 1, 3.0)
    assert found is not None
    assert round(found[1], 1) == 10.0


def test_a_stage_in_parts_is_done_with_its_last(clock: Clock) -> None:
    with Job({"race": 40.0}, {"race": 40}) as job:
        for part in range(2):
            with Progress("race", 10) as bar:
                clock.now = 10.0 * (part + 1)
                bar.advance(10)
        assert job.state("race", 10, 20, 10.0) == (0.75, 10.0)


def test_what_the_job_does_not_know_says_nothing_of_it(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Job({"first": 10.0}), Progress("other", 1) as bar:
        bar.advance()
    assert "job" not in capsys.readouterr().err


def test_after_a_job_nothing_is_said_of_it(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Job({"first": 10.0}):
        pass
    with Progress("first", 1) as bar:
        bar.advance()
    assert "job" not in capsys.readouterr().err
