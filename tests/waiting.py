"""Waiting for something that happens elsewhere, with an end: a test that waits for ever takes the whole run with it."""

import time
from collections.abc import Callable


def wait_for(happened: Callable[[], bool], seconds: float = 120) -> None:
    """Return once `happened` says so; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s"
        time.sleep(0.01)
