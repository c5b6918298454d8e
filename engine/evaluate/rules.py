"""The offline rules, applied in this process, by processes on this machine's idle cores, or by tasks on the Ray cluster's.

One core grades a few hundred responses of 200 tokens a second, an engine on an H100 makes 140: several engines need other cores.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import connection, get_context, parent_process
from typing import Any, NamedTuple, Protocol

from engine.cluster import connect
from engine.scoring.grader import OfflineGrader
from judging.judgement import Item, Judgement

BATCHES_A_CORE = 2
ENGINE_CORES = 4  # that an engine's processes and this one keep busy
MOST_PROCESSES = 8


class Graded(NamedTuple):
    """Judgements in the items' order, and the seconds of a core that they took."""

    judgements: list[Judgement]
    seconds: float


class Rules(Protocol):
    """Applies the rules to batches; `ahead` of them may be under way at once. Close it when no batch is."""

    ahead: int

    def start(self, items: Sequence[Item], reference: float | None) -> Callable[[], Graded]:
        """Begin a batch; what is returned waits for it. `reference` as OfflineGrader's, nats a token."""

    def close(self) -> None:
        """Stop what applies them."""


class LocalRules:
    """In the caller's thread, at once."""

    ahead = 0

    def start(self, items: Sequence[Item], reference: float | None) -> Callable[[], Graded]:
        graded = apply_rules(items, reference)
        return lambda: graded

    def close(self) -> None:
        pass


class PoolRules:
    """In processes of one core each, which start with the first batch and end with this one, however it ends."""

    def __init__(self, cores: int) -> None:
        self.cores, self.ahead = cores, BATCHES_A_CORE * cores
        self._pool: ProcessPoolExecutor | None = None

    def start(self, items: Sequence[Item], reference: float | None) -> Callable[[], Graded]:
        if self._pool is None:
            context = get_context("spawn")  # a fork of a process with CUDA and threads may hang
            self._pool = ProcessPoolExecutor(self.cores, context, initializer=_end_with_parent)
        return self._pool.submit(apply_rules, list(items), reference).result

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _end_with_parent() -> None:
    """Have this process end where its parent is gone: nothing else tells it, since it waits on a pipe that it holds itself."""
    parent = parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and shuts this down

    def wait_for_it() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait_for_it, daemon=True).start()


def rules_here() -> Rules:
    """Of one engine: beside it where this machine has cores to spare, else in the caller's thread."""
    spare = len(os.sched_getaffinity(0)) - ENGINE_CORES
    return PoolRules(min(spare, MOST_PROCESSES)) if spare > 0 else LocalRules()


class RayRules:
    """In Ray tasks of one core each."""

    def __init__(self) -> None:
        self.ahead = BATCHES_A_CORE * (os.cpu_count() or 1)
        self._task: Any = None

    def start(self, items: Sequence[Item], reference: float | None) -> Callable[[], Graded]:
        import ray

        if self._task is None:
            connect()
            self.ahead = BATCHES_A_CORE * int(ray.cluster_resources().get("CPU", 1))
            self._task = ray.remote(apply_rules)
        asked = self._task.remote(list(items), reference)
        return lambda: Graded(*ray.get(asked))

    def close(self) -> None:
        pass


def apply_rules(items: Sequence[Item], reference: float | None) -> Graded:
    """Grades of one batch; equal judgements are one object."""
    started = time.thread_time()
    known: dict[Judgement, Judgement] = {}
    judgements = [known.setdefault(one, one) for one in _grader(reference).grade(items)]
    return Graded(judgements, time.thread_time() - started)


@lru_cache(maxsize=4)
def _grader(reference: float | None) -> OfflineGrader:
    return OfflineGrader(reference)
