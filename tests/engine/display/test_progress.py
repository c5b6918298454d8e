"""Progress: what is counted, and that no time left is named before there is something to estimate from."""

import pytest

from engine.display import progress
from engine.display.progress import Progress


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


def test_two_batches_give_one(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("directions", 512, "prompts")
    for batch in (1, 2):
        clock.now = 28.0 * batch
        for _ in range(64):
            bar.advance()
    assert capsys.readouterr().err.splitlines()[-1] == "directions: 65/512 prompts, 385 s left"


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
