"""Grades responses in a thread while engines generate; a bounded queue between the two holds memory and says who waited."""

import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

from judging.judgement import Judgement
from judging.offline import OfflineJudge

QUEUED_BATCHES = 8
Row = dict[str, Any]
Key = tuple[Any, ...]


class Scoring:
    """The rule judge behind a queue. `grades` holds what is graded; `drain` waits until that is everything submitted.

    It grades the text alone; `regrade` adds what the base's likelihoods say, once they are there.
    """

    def __init__(self) -> None:
        self.grades: dict[Key, Judgement] = {}
        self.busy_seconds = self.waited_seconds = 0.0
        self._rows: queue.Queue[Sequence[Row] | None] = queue.Queue(QUEUED_BATCHES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[Row]) -> None:
        """Queue rows; waits where the judge is behind by more than the queue holds."""
        self._check()
        started = time.monotonic()
        self._rows.put(rows)
        self.waited_seconds += time.monotonic() - started

    def drain(self) -> None:
        """Wait for the judge."""
        started = time.monotonic()
        self._rows.join()
        self.waited_seconds += time.monotonic() - started
        self._check()

    def close(self) -> None:
        """Stop the thread."""
        self._rows.put(None)
        self._thread.join()

    def regrade(self, rows: Sequence[Row], reference: float | None, logprobs: dict[Key, float | None]) -> None:
        """Grade rows again with their log-probability under the base and the base's own median, both nats a token."""
        started = time.monotonic()
        judge = OfflineJudge(reference)
        for row in rows:
            key = row["variant_hash"], row["prompt_id"]
            self.grades[key] = judge.score(row["prompt"], row["response"], mean_logprob=logprobs.get(key))
        self.busy_seconds += time.monotonic() - started

    def _work(self) -> None:
        judge = OfflineJudge()
        while (rows := self._rows.get()) is not None:
            started = time.thread_time()
            try:
                for row in rows:
                    self.grades[row["variant_hash"], row["prompt_id"]] = judge.score(row["prompt"], row["response"])
            except Exception as error:  # handed to the thread that waits
                self._error = error
            self.busy_seconds += time.thread_time() - started
            self._rows.task_done()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
