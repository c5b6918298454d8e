"""The offline rules, applied in this process or by tasks on the Ray cluster's idle cores.

One core grades a few hundred responses of 200 tokens a second, an engine on an H100 makes 140: several engines need other cores.
"""

import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from engine.cluster import connect
from engine.scoring.grader import OfflineGrader
from judging.judgement import Item, Judgement

BATCHES_A_CORE = 2


class Graded(NamedTuple):
    """Judgements in the items' order, and the seconds of a core that they took."""

    judgements: list[Judgement]
    seconds: float


class Rules(Protocol):
    """Applies the rules to batches; `ahead` of them may be under way at once."""

    ahead: int

    def start(self, items: Sequence[Item], reference: float | None) -> Callable[[], Graded]:
        """Begin a batch; what is returned waits for it. `reference` as OfflineGrader's, nats a token."""


class LocalRules:
    """In the caller's thread, at once."""

    ahead = 0

    def start(self, items: Sequence[Item], reference: float | None) -> Callable[[], Graded]:
        graded = apply_rules(items, reference)
        return lambda: graded


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


def apply_rules(items: Sequence[Item], reference: float | None) -> Graded:
    """Grades of one batch; equal judgements are one object."""
    started = time.thread_time()
    known: dict[Judgement, Judgement] = {}
    judgements = [known.setdefault(one, one) for one in _grader(reference).grade(items)]
    return Graded(judgements, time.thread_time() - started)


@lru_cache(maxsize=4)
def _grader(reference: float | None) -> OfflineGrader:
    return OfflineGrader(reference)
