"""Engines on one GPU start one after another: vLLM measures what is free, and takes another's start for its own use."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from typing import Any

from engine.display.progress import say
from engine.environment import has_gpu
from engine.paths import cache_dir
from engine.vllm_compat import start_engine


@contextlib.contextmanager
def turn_to_start() -> Iterator[None]:
    """Wait until no other process of this project starts an engine on the same GPUs; nothing where there is no GPU."""
    if not has_gpu():
        yield
        return
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "all").replace(",", "-").replace("/", "-")
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / f"engine-start-{devices}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("engine: waiting for another to start on this GPU")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start_in_turn(arguments: Mapping[str, Any], purpose: str = "") -> Any:
    """A vllm.LLM, as `start_engine`, when it is this process's turn."""
    with turn_to_start():
        return start_engine(arguments, purpose)
