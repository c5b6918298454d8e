"""Engines of one GPU start one after another, those of two do not wait for each other."""

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.inference import turns


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that says it has a GPU, with a cache of its own."""
    monkeypatch.setattr(turns, "has_gpu", lambda: True)
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    return tmp_path


@contextmanager
def another_starts(cache: Path, devices: str) -> Iterator[None]:
    with (cache / f"engine-start-{devices}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def started() -> threading.Event:
    """Set when a turn has come, which another thread waits for."""
    come = threading.Event()

    def start() -> None:
        with turns.turn_to_start():
            come.set()

    threading.Thread(target=start, daemon=True).start()
    return come


def test_a_start_waits_for_the_one_under_way(machine: Path) -> None:
    with another_starts(machine, "0"):
        come = started()
        assert not come.wait(0.5)
    assert come.wait(10)


def test_a_start_on_another_gpu_does_not_wait(machine: Path) -> None:
    with another_starts(machine, "1"):
        assert started().wait(10)


def test_the_wait_is_said(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with another_starts(machine, "0"):
        started().wait(0.5)
    assert "waiting for another to start on this GPU" in capsys.readouterr().err


def test_without_a_gpu_nothing_waits(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "has_gpu", lambda: False)
    with another_starts(machine, "0"):
        assert started().wait(10)
