"""Processes that are killed, ended or started twice: every row is there once, and the scores are those of an undisturbed run."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.damage.forked import Command
from tests.small_run import REQUESTS, make_inputs

ROWS = 2 * (REQUESTS + 4)
PAUSE_S = 0.02  # a response
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small")
    make_inputs(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Any]:
    assert Command(folder, folder / "undisturbed").wait() == 0
    return content(folder / "undisturbed")


def content(out: Path) -> dict[str, Any]:
    """What a finished run's tables hold, without what differs from time to time."""
    rollouts, scores = (pd.read_parquet(out / f"{name}.parquet") for name in ("rollouts", "scores"))
    kept = ["variant_hash", "prompt_id", "compliance", "coherence", "declined"]
    return {"rollouts": rollouts.astype(str).values.tolist(), "scores": scores[kept].astype(str).values.tolist()}


def run_with_signals(folder: Path, out: Path, rng: random.Random, most: int) -> tuple[int, dict[str, Any]]:
    """Signals sent that hit a live process, and what the run holds once it has been resumed to its end."""
    hits = 0
    for _ in range(rng.randrange(1, most + 1)):
        command, number = Command(folder, out, pause_s=PAUSE_S), rng.choice(SIGNALS)
        time.sleep(rng.uniform(0, 2.2 * ROWS * PAUSE_S))
        hits += command.process.is_alive()
        command.signal(number)
        status = command.wait()
        assert status in (0, -signal.SIGKILL, 128 + signal.SIGTERM, 130, -signal.SIGTERM, -signal.SIGINT), command.said
        assert "Traceback" not in command.said
    last = Command(folder, out)
    assert last.wait() == 0, last.said
    return hits, content(out)


def test_a_run_that_was_killed_is_resumed_to_the_undisturbed_one(
    folder: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    for number in range(3):
        _, found = run_with_signals(folder, tmp_path / str(number), random.Random(number), 2)
        assert found == undisturbed


@pytest.mark.slow
def test_two_hundred_signals_over_eighty_runs_lose_nothing(folder: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    hits = 0
    for number in range(80):
        hit, found = run_with_signals(folder, tmp_path / str(number), random.Random(100 + number), 4)
        hits += hit
        assert found == undisturbed, f"run {number}"
    print(f"{hits} signals hit a live process, 80 of 80 runs as undisturbed")


@pytest.mark.parametrize(("number", "status", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")])
def test_finished_rows_are_on_disk_when_a_run_is_asked_to_end(
    folder: Path, tmp_path: Path, number: signal.Signals, status: int, word: str
) -> None:
    command = Command(folder, tmp_path / "run", pause_s=0.2)
    wait_for(tmp_path / "run" / "directions.safetensors")
    time.sleep(1.1)
    command.signal(number)
    assert command.wait() == status
    assert f"{word}; finished rows are kept; run the same command again to continue" in command.said
    rows = [len(pd.read_parquet(file)) for file in (tmp_path / "run" / "rollouts.shards").glob("*.parquet")]
    assert sum(rows) >= 3


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline, f"{file.name} does not come"
        time.sleep(0.01)


def two_at_once(folder: Path, out: Path, *, clean: bool, delay_s: float) -> tuple[int, int, str, pd.DataFrame]:
    """Exit statuses of a run and of one of another configuration beside it, the second's words, and the rows there are."""
    first = Command(folder, out, max_tokens=16, pause_s=0.01)
    wait_for(out / "manifest.json")
    time.sleep(delay_s)
    second = Command(folder, out, max_tokens=24, clean=clean, pause_s=0.01)
    statuses = first.wait(), second.wait()
    return *statuses, second.said, pd.read_parquet(out / "rollouts.parquet")


def trials(folder: Path, tmp_path: Path, count: int) -> None:
    kept_out = 0
    for number in range(count):
        clean, rng = bool(number % 2), random.Random(number)
        first, second, said, rows = two_at_once(folder, tmp_path / str(number), clean=clean, delay_s=rng.uniform(0, 0.3))
        assert (rows["num_output_tokens"].nunique(), len(rows)) == (1, ROWS), "two configurations in one table"
        assert (first, second) in ((0, 2), (2, 0), (0, 0)), said
        assert "Traceback" not in said
        if second == 2:
            kept_out += 1
            assert ("Another process is at work" if clean else "was made under another configuration") in said
    print(f"{kept_out} of {count} second processes were kept out, no table holds two configurations")


def test_a_second_process_never_mixes_its_rows_in(folder: Path, tmp_path: Path) -> None:
    trials(folder, tmp_path, 4)


@pytest.mark.slow
def test_a_hundred_second_processes_never_mix_their_rows_in(folder: Path, tmp_path: Path) -> None:
    trials(folder, tmp_path, 100)
