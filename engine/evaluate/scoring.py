"""Grades responses while engines generate: a thread and a bounded queue between the two hold memory and say who waited."""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.errors import EngineError
from engine.evaluate.keyed import Key, Keyed
from engine.evaluate.rules import Graded, LocalRules, Rules
from engine.runs.schemas import RolloutRow
from engine.scoring.grader import TEXT_ONLY, FittedGrader, Grader, OfflineGrader
from engine.scoring.scores import is_unfinished, item_of
from judging.judgement import UNFINISHED, Item, Judgement
from judging.view import BaseView

QUEUED_BATCHES = 8


class Scoring:
    """A judge behind a queue. `grades` holds what is graded; `drain` waits until that is everything fed.

    The rules grade the text alone; `regrade` adds what the base's likelihoods say, once they are there. A language model's
    judgements are asked for meanwhile and read by `drain`. trace: show the judge what was thought before a response.
    """

    def __init__(self, grader: Grader, rules: Rules | None = None, *, trace: bool = False) -> None:
        self.grader = grader
        self.trace = trace
        self.rules = rules or LocalRules()
        self.grades: Keyed[Judgement] = Keyed()
        self._under_way: deque[tuple[list[Key], Callable[[], Graded]]] = deque()
        self._known: dict[Judgement, Judgement] = {}  # the rules have few: equal ones are held once
        self.busy_seconds = self.waited_seconds = 0.0
        self._asked: list[tuple[Key, Item]] = []
        self._rows: queue.Queue[Sequence[RolloutRow] | None] = queue.Queue(QUEUED_BATCHES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    @property
    def reads_likelihoods(self) -> bool:
        """Whether the judge wants to know how likely the base finds a response."""
        return not self.grader.model

    @property
    def reads_views(self) -> bool:
        """Whether the judge wants to know what the base makes of request and response."""
        return isinstance(self.grader, FittedGrader)

    @property
    def by_text(self) -> Grader:
        """The judge as it is where nothing of the base is known."""
        if isinstance(self.grader, FittedGrader):
            return self.grader.by_text()
        return OfflineGrader(name=TEXT_ONLY) if self.reads_likelihoods else self.grader

    def feed(self, rows: Sequence[RolloutRow]) -> None:
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
        self._collect(left=0)
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
        self.rules.close()

    def regrade(self, rows: Sequence[RolloutRow], reference: float | None, logprobs: Mapping[Key, float | None]) -> None:
        """Grade rows again with their log-probability under the base and the base's own median, both nats a token.

        Of a drained judge. The grades are there after the next `drain`, or after this call where this process applies the rules.
        """
        finished = [row for row in rows if not is_unfinished(row)]
        self._apply(
            [(key, item_of(row, logprobs.get(key), trace=self.trace)) for row in finished for key in [_key(row)]], reference
        )

    def regrade_viewed(self, rows: Sequence[RolloutRow], views: Mapping[Key, BaseView | None]) -> None:
        """Grade rows again with what the base makes of them; of a drained judge, and there after the next `drain`."""
        finished = [row for row in rows if not is_unfinished(row)]
        self._asked += [(key, item_of(row, trace=self.trace, view=views.get(key))) for row in finished for key in [_key(row)]]

    def _work(self) -> None:
        while (rows := self._rows.get()) is not None:
            started = time.thread_time()
            try:
                self._note_unfinished(rows)
                asked = [(_key(row), item_of(row, trace=self.trace)) for row in rows if not is_unfinished(row)]
                if self.reads_likelihoods:
                    self._apply(asked, None)
                else:
                    self._asked += asked
                    self.grader.ask([item for _, item in asked])
                    self.busy_seconds += time.thread_time() - started
            except Exception as error:  # handed to the thread that waits
                self._error = error
            self._rows.task_done()

    def _note_unfinished(self, rows: Sequence[RolloutRow]) -> None:
        for row in rows:
            if is_unfinished(row):
                self.grades[_key(row)] = UNFINISHED

    def _apply(self, asked: Sequence[tuple[Key, Item]], reference: float | None) -> None:
        self._under_way.append(([key for key, _ in asked], self.rules.start([item for _, item in asked], reference)))
        self._collect(left=self.rules.ahead)

    def _collect(self, left: int) -> None:
        """Take in what the rules said, until at most `left` batches are under way."""
        while len(self._under_way) > left:
            keys, wait = self._under_way.popleft()
            graded = wait()
            for key, one in zip(keys, graded.judgements, strict=True):
                self.grades[key] = self._known.setdefault(one, one)
            self.busy_seconds += graded.seconds

    def _read(self) -> None:
        asked, self._asked = self._asked, []
        if asked:
            judgements = self.grader.grade([item for _, item in asked])
            self.grades.update(zip([key for key, _ in asked], judgements, strict=True))

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def _key(row: RolloutRow) -> Key:
    return row["variant_hash"], row["prompt_id"]
