"""Dispatches calls to crews and caches their outcomes: nothing is asked twice, nothing counts before it is stored.

Calls that are cached or under way are not made again. The first are made in this process: a wrong key shows before Ray is
started, and no call waits for Ray. It stops by itself where the endpoint is down or refuses, or where more calls could exceed
the cost limit.

Two kinds of thread meet here. Callers `enqueue` and `drain`. The fan-out's own thread makes `_step` after `_step`, so that calls
go on while a caller generates. Calls cross by the inbox; counts, `stopped` and an error are written by that thread alone.
Callers may wait for the thread, without end. The thread waits for no caller: only for the disk, a tick, or a crew.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
    """Numbers of calls, tokens and seconds so far, and their costs in the price table's currency (0 without one).

    uncounted: answers whose tokens the endpoint did not count. Their part of the tokens is missing here, and what they can have
    cost at most is in `unsure_cost`.
    notes: what the endpoint turned out to do, by kind.
    """

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
    uncounted: int = 0
    seconds: float = 0.0
    done_by_first_crew: int = 0
    seconds_of_crew: float = 0.0  # of the crew that took over, from its first call to its last answer
    notes: dict[str, str] = field(default_factory=dict)


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
        # The one way in. It is bounded, so a caller that asks faster than the endpoint answers waits in `enqueue`.
        self._inbox: queue.Queue[Sequence[Call]] = queue.Queue(QUEUED_BATCHES)
        # From here to `_took_over_at` the fan-out's thread alone writes. `_closing` is set once, by whoever closes.
        self._waiting: deque[Call] = deque()
        self._queued: set[bytes] = set()  # waiting or under way
        self._under_way: dict[bytes, float] = {}  # with what each may cost at most
        self._proven = False
        self._closing = False
        self._stopped_at = self._took_over_at = 0.0
        # Set by the thread when it dies, raised to the next caller by `_check`.
        self._error: BaseException | None = None
        # Guards `_unread`, which callers and the thread change, and wakes `drain`. It is held for a few instructions and for
        # `on_wait`, which must be quick; never during a call, a read of the cache or a wait for room in the inbox.
        self._idle = threading.Condition()
        self._unread = 0  # batches enqueued and not taken in yet
        # A daemon: a caller that dies without `close` must not leave the process waiting for an endpoint.
        self._thread = threading.Thread(target=self._run, name="judge fan-out", daemon=True)
        self._thread.start()

    def enqueue(self, calls: Sequence[Call]) -> None:
        """Queue calls; waits where they come faster than they are made.

        Raises JudgeError after `close`, and whatever ended the fan-out's thread.
        """
        self._check()
        # Counted before it is put: a `drain` on another thread must not see an empty fan-out in between.
        with self._idle:
            self._unread += 1
        while not self._closing:
            try:
                # Not without end: the thread may die or be closed while the inbox is full, and nobody would read on.
                return self._inbox.put(calls, timeout=1)
            except queue.Full:
                self._check()
        raise JudgeError("Judging was ended before everything was asked.")

    def offer(self, calls: Sequence[Call]) -> None:
        """Queue calls without waiting. Where the inbox has no room they are left out."""
        # Put and counted under the lock, so that the thread, which counts it down again, comes after.
        with self._idle:
            try:
                self._inbox.put_nowait(calls)
            except queue.Full:
                return
            self._unread += 1

    def drain(self) -> None:
        """Wait until every enqueued call has ended or been given up. Raises whatever ended the fan-out's thread."""
        with self._idle:
            while self._error is None and not self._closing and (self._unread or self._queued):
                # The thread notifies when it is idle and when it ends; the second is for `on_wait` to show progress.
                self._idle.wait(1)
                self._on_wait(self.counts)
        self._check()

    def close(self) -> None:
        """End the thread and the crews; calls under way are dropped."""
        self._closing = True
        # Returns when the step in progress and the crews' `close` have: a tick, a write to disk, a crew still starting.
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
        except BaseException as error:  # raised again on the thread that waits
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
        # The only wait of a step beside an empty inbox's: a tick at most, so that new calls are dispatched soon.
        if self._under_way:
            self._store(cache, self._relay.collect(TICK_S))
            self.counts.seconds += time.monotonic() - started
        if self.stopped is not None:
            self._give_up()
        with self._idle:
            if not self._queued:
                self._idle.notify_all()

    def _take_in(self, cache: ReplyCache) -> None:
        """Read the inbox while there is room, and keep the calls that are neither cached nor under way."""
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
        """How many calls may be under way.

        Few before one came through, and few where two crews would each keep the same rate limits.
        """
        few = not self._proven or (self._endpoint.is_limited and self._relay.is_starting)
        return FIRST_CALLS if few else 2 * self._endpoint.max_concurrency

    def _affordable(self, call: Call) -> Call | None:
        """The call, with as many attempts as the cost limit allows; None where it allows none.

        The limit is kept even if every call under way costs the most it can.
        """
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
        """Store outcomes on disk, and only then count them."""
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
        counts.prompt_tokens += outcome.prompt_tokens or 0
        counts.completion_tokens += outcome.completion_tokens or 0
        counts.uncounted += outcome.latency_ms is not None and None in (outcome.prompt_tokens, outcome.completion_tokens)
        counts.cost += outcome.cost or 0
        counts.unsure_cost += outcome.unsure_cost
        self._budget.spent += (outcome.cost or 0) + outcome.unsure_cost
        for kind, note in outcome.notes.items():
            if kind not in counts.notes:
                counts.notes[kind] = note
                self._say(f"judge {self._endpoint.model}: {note}")

    def _give_up(self) -> None:
        """Drop the calls that wait; those under way may still come, for a while."""
        self._stopped_at = self._stopped_at or time.monotonic()
        self._queued -= {call.key for call in self._waiting}
        self._waiting.clear()
        if time.monotonic() - self._stopped_at > GRACE_S:
            self._queued -= self._under_way.keys()
            self._under_way.clear()
