"""Hands calls to crews and puts what comes back into the cache: nothing is asked twice, nothing counts before it is stored.

A thread of its own does it, so that calls run while the caller generates. Calls that are cached or under way are not made
again. The first are made in this process: a wrong key shows before Ray is started, and no call waits for Ray. It stops by itself
where the endpoint is down or refuses, or where more calls could exceed the cost limit.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from judging.budget import Budget
from judging.cache import ReplyCache
from judging.calls import Call, Outcome
from judging.costs import attempt_cost, worst_cost
from judging.crew import Relay, Starter
from judging.endpoint import Endpoint
from judging.errors import JudgeError

FIRST_CALLS = 4  # until one came through: a wrong key is told four times, not five hundred
QUEUED_BATCHES = 16
CALLS_A_BATCH = 64
TICK_S = 0.05
GRACE_S = 15.0  # for calls under way when judging stops: they are paid for


@dataclass
class Counts:
    """What was done, and what it took. Costs in the price table's currency, 0 without one."""

    asked: int = 0
    cached: int = 0
    shared: int = 0  # the same question as one under way
    done: int = 0
    failed: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unsure_cost: float = 0.0
    seconds: float = 0.0
    done_by_first_crew: int = 0
    seconds_of_crew: float = 0.0  # of the crew that took over, from its first call to its last answer


class Fanout:
    """Makes calls with the crews that `starters` build: the first one's calls until one came through, then the last one's.

    The budget's limit is kept even if every call under way takes all its attempts and its longest answer. Near the limit calls
    get fewer attempts.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache_path: Path,
        starters: Sequence[Starter],
        *,
        budget: Budget | None = None,
        say: Callable[[str], None] = print,
        on_wait: Callable[[Counts], None] = lambda counts: None,
    ) -> None:
        self.counts = Counts()
        self.stopped: str | None = None
        self.stopped_by_cost = False
        self._endpoint, self._cache_path, self._relay = endpoint, cache_path, Relay(starters)
        self._budget, self._say, self._on_wait = budget or Budget(), say, on_wait
        self._inbox: queue.Queue[Sequence[Call]] = queue.Queue(QUEUED_BATCHES)
        self._waiting: deque[Call] = deque()
        self._queued: set[bytes] = set()  # waiting or under way
        self._under_way: dict[bytes, float] = {}  # with what each may cost at most
        self._proven = False
        self._closing = False
        self._stopped_at = self._took_over_at = 0.0
        self._error: BaseException | None = None
        self._idle = threading.Condition()
        self._unread = 0  # batches enqueued and not taken in yet
        self._thread = threading.Thread(target=self._run, name="judge fan-out", daemon=True)
        self._thread.start()

    def enqueue(self, calls: Sequence[Call]) -> None:
        """Take calls on; waits where they come faster than they are made."""
        self._check()
        with self._idle:
            self._unread += 1
        while not self._closing:
            try:
                return self._inbox.put(calls, timeout=1)
            except queue.Full:
                self._check()
        raise JudgeError("Judging was ended before everything was asked.")

    def offer(self, calls: Sequence[Call]) -> None:
        """The same without waiting: calls that find no room, or no thread, are left out."""
        with self._idle:
            try:
                self._inbox.put_nowait(calls)
            except queue.Full:
                return
            self._unread += 1

    def drain(self) -> None:
        """Wait until every enqueued call has ended or been given up."""
        with self._idle:
            while self._error is None and not self._closing and (self._unread or self._queued):
                self._idle.wait(1)
                self._on_wait(self.counts)
        self._check()

    def close(self) -> None:
        """End the thread and the crew; what is under way is dropped."""
        self._closing = True
        self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        cache: ReplyCache | None = None
        try:
            cache = ReplyCache(self._cache_path, self._say)
            while not self._closing:
                self._step(cache)
        except BaseException as error:  # handed to the thread that waits
            self._error = error
        finally:
            self._relay.close()
            if cache is not None:
                cache.close()
            with self._idle:
                self._idle.notify_all()

    def _step(self, cache: ReplyCache) -> None:
        started = time.monotonic()
        self._take_in(cache)
        self._hand_out()
        if self._under_way:
            self._store(cache, self._relay.collect(TICK_S))
            self.counts.seconds += time.monotonic() - started
        if self.stopped is not None:
            self._give_up()
        with self._idle:
            if not self._queued:
                self._idle.notify_all()

    def _take_in(self, cache: ReplyCache) -> None:
        """Read the inbox as long as there is room, and keep what has to be asked."""
        while len(self._waiting) < CALLS_A_BATCH * QUEUED_BATCHES:
            try:
                calls = self._inbox.get(timeout=0 if self._queued else TICK_S)
            except queue.Empty:
                return
            fresh = {call.key: call for call in calls if call.key not in self._queued}
            answered = cache.answered(list(fresh))
            self.counts.asked += len(calls)
            self.counts.shared += len(calls) - len(fresh)
            self.counts.cached += len(answered)
            self._proven = self._proven or bool(answered)
            missing = [call for key, call in fresh.items() if key not in answered]
            if self.stopped is None:
                self._waiting += missing
                self._queued |= {call.key for call in missing}
            with self._idle:
                self._unread -= 1

    def _hand_out(self) -> None:
        if self._proven and self._waiting:
            self._relay.start_next()
        if self._relay.take_over():
            self._took_over_at, self.counts.done_by_first_crew = time.monotonic(), self.counts.done
        room = self._window() - len(self._under_way)
        calls: list[Call] = []
        while self._waiting and len(calls) < room and (call := self._affordable(self._waiting[0])) is not None:
            self._waiting.popleft()
            self._under_way[call.key] = worst_cost(self._endpoint, call)
            calls.append(call)
        for start in range(0, len(calls), CALLS_A_BATCH):
            self._relay.dispatch(calls[start : start + CALLS_A_BATCH], proven=self._proven)

    def _window(self) -> int:
        """Calls that may be under way: a few before one came through, and where two crews would each keep the same limits."""
        few = not self._proven or (self._endpoint.is_limited and self._relay.is_starting)
        return FIRST_CALLS if few else 2 * self._endpoint.max_concurrency

    def _affordable(self, call: Call) -> Call | None:
        """The call, with the attempts that the limit allows even if all under way cost the most they can; None for none."""
        one = attempt_cost(self._endpoint, call.messages)
        if self._budget.limit is None or one == 0:
            return call
        left = self._budget.limit - self._budget.spent - sum(self._under_way.values())
        attempts = min(int(left / one) - 1, self._endpoint.max_attempts)  # one is kept for a harmless question
        if attempts >= 1:
            return replace(call, attempts=attempts)
        if not self._under_way:
            self.stopped = f"another call could exceed the cost limit of {self._budget.limit:g}; raise --max-cost to go on"
            self.stopped_by_cost = True
        return None

    def _store(self, cache: ReplyCache, outcomes: Sequence[Outcome]) -> None:
        """On disk first; then they count."""
        fresh = [outcome for outcome in outcomes if outcome.key in self._under_way]
        if fresh:
            cache.put([outcome for outcome in fresh if outcome.attempts])
        for outcome in fresh:
            del self._under_way[outcome.key]
            self._queued.discard(outcome.key)
            self._count(outcome)
            if self._took_over_at:
                self.counts.seconds_of_crew = time.monotonic() - self._took_over_at
            self._proven = self._proven or outcome.ended == "done"
            if outcome.ended == "stopped" and self.stopped is None:
                self.stopped = outcome.error or "the endpoint refused"

    def _count(self, outcome: Outcome) -> None:
        counts = self.counts
        counts.done += outcome.ended == "done"
        counts.failed += outcome.ended != "done"
        counts.attempts += outcome.attempts
        counts.prompt_tokens += outcome.prompt_tokens
        counts.completion_tokens += outcome.completion_tokens
        counts.cost += outcome.cost or 0
        counts.unsure_cost += outcome.unsure_cost
        self._budget.spent += (outcome.cost or 0) + outcome.unsure_cost

    def _give_up(self) -> None:
        """Nothing more is sent; what is under way may still come, for a while."""
        self._stopped_at = self._stopped_at or time.monotonic()
        self._queued -= {call.key for call in self._waiting}
        self._waiting.clear()
        if time.monotonic() - self._stopped_at > GRACE_S:
            self._queued -= self._under_way.keys()
            self._under_way.clear()
