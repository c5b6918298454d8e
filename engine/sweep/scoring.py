"""Grades responses while engines generate: a thread and a bounded queue between the two hold memory and say who waited."""

import contextlib
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import EngineError
from engine.graders import Grader, OfflineGrader
from engine.scores import item_of
from judging.judgement import Item, Judgement

QUEUED_BATCHES = 8
Row = dict[str, Any]
Key = tuple[Any, ...]


class Scoring:
    """A judge behind a queue. `grades` holds what is graded; `drain` waits until that is everything submitted.

    The rules grade the text alone; `regrade` adds what the base's likelihoods say, once they are there. A language model's
    judgements are asked for meanwhile and read by `drain`.
    """

    def __init__(self, grader: Grader) -> None:
        self.grader = grader
        self.grades: dict[Key, Judgement] = {}
        self.busy_seconds = self.waited_seconds = 0.0
        self._asked: list[tuple[Key, Item]] = []
        self._rows: queue.Queue[Sequence[Row] | None] = queue.Queue(QUEUED_BATCHES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    @property
    def reads_likelihoods(self) -> bool:
        """Whether the judge wants to know how likely the base finds a response."""
        return not self.grader.model

    def submit(self, rows: Sequence[Row]) -> None:
        """Queue rows; waits where the judge is behind by more than the queue holds."""
        self._check()
        started = time.monotonic()
        self._rows.put(rows)
        self.waited_seconds += time.monotonic() - started

    def drain(self) -> None:
        """Wait for the judge. Raises EngineError where it has stopped: nothing can be chosen by grades that are missing."""
        started = time.monotonic()
        self._rows.join()
        self._check()
        self.grader.drain()
        self._read()
        self.waited_seconds += time.monotonic() - started
        if self.grader.stopped is not None:
            raise EngineError(f"The judge stopped: {self.grader.stopped}. What is there is kept; run again to continue.")

    def totals(self) -> dict[str, Any]:
        """Grades that are missing, and what all of them cost where that is known."""
        costs = [one.cost for one in self.grades.values() if one.cost is not None]
        missing = sum(one.error is not None for one in self.grades.values())
        return {"missing": missing, "cost": sum(costs) if costs else None}

    def close(self) -> None:
        """Stop the judge and the thread; what is queued is dropped."""
        self.grader.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._rows.get_nowait()
        self._rows.put(None)
        self._thread.join()

    def regrade(self, rows: Sequence[Row], reference: float | None, logprobs: Mapping[Key, float | None]) -> None:
        """Grade rows again with their log-probability under the base and the base's own median, both nats a token."""
        started = time.monotonic()
        keys = [(row["variant_hash"], row["prompt_id"]) for row in rows]
        items = [item_of(row, logprobs.get(key)) for key, row in zip(keys, rows, strict=True)]
        self.grades |= dict(zip(keys, OfflineGrader(reference).grade(items), strict=True))
        self.busy_seconds += time.monotonic() - started

    def _work(self) -> None:
        while (rows := self._rows.get()) is not None:
            started = time.thread_time()
            try:
                asked = [((row["variant_hash"], row["prompt_id"]), item_of(row)) for row in rows]
                self._asked += asked
                self.grader.submit([item for _, item in asked])
                if self.reads_likelihoods:
                    self._read()  # rules answer at once
            except Exception as error:  # handed to the thread that waits
                self._error = error
            self.busy_seconds += time.thread_time() - started
            self._rows.task_done()

    def _read(self) -> None:
        asked, self._asked = self._asked, []
        judgements = self.grader.grade([item for _, item in asked])
        self.grades |= {key: one for (key, _), one in zip(asked, judgements, strict=True)}

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
