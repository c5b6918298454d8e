"""Makes calls and makes them again where that can help: one event loop, one client, one set of slots.

    worker = Worker(endpoint, hooks, key, ceiling=64, quota=None)
    await worker.begin(calls)
    outcomes = await worker.collect()     # those that have ended, at least one

It knows neither cache nor Ray. A Ray actor is this class as it is, and tests run it in their own loop.
Every task runs in one event loop, so plain fields need no lock: nothing else runs between two awaits.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from pydantic import SecretStr

from judging.calls import Call, Outcome
from judging.costs import attempt_cost, estimated_tokens
from judging.endpoint import Endpoint
from judging.errors import Fault, FaultKind
from judging.judge import BilledFault, Hooks, Reply, complete, open_client
from judging.pacing import Breaker, Slots
from judging.replies import shortened

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 20.0
SHORTEST_ATTEMPT = 0.1  # of the timeout: less time than this is not worth a paid call
MAX_UNUSABLE = 2  # a judge that answers nonsense is asked once more
MAX_UNREACHABLE = 3  # before any success: an address where nothing listens
COLLECT_S = 0.01  # how long finished calls gather before they go back together
HIDDEN = "[key]"
SHORTEST_SECRET = 8  # a placeholder such as "none" or "EMPTY" is no secret, and its letters occur in verdicts


class QuotaClient(Protocol):
    """The account's rate limits, wherever they are kept."""

    async def reserve(self, tokens: int) -> float:
        """Seconds to wait before a request of about `tokens` tokens is sent."""

    async def settle(self, tokens: int) -> None:
        """Correct the estimate: `tokens` more (or, negative, fewer) were used."""


@dataclass(frozen=True)
class Decision:
    """How a call goes on after an attempt.

    ends: done, failed (this call), stopped (every call), or retry after `pause_s` seconds.
    error: the row's error, should the call end here; None where it is done.
    """

    ends: Literal["done", "retry", "failed", "stopped"]
    error: str | None = None
    pause_s: float = 0.0


DONE = Decision("done")


@dataclass
class _Attempts:
    """The attempts of one call so far, and how many it may take."""

    outcome: Outcome
    allowed: int
    started: float | None = None
    waited: float = 0.0  # for a slot or the account's limits, after the first attempt
    counted: int = 0
    unusable: int = 0
    faults: list[Fault] = field(default_factory=list)


class Worker:
    """Makes the calls of one judge and hands back their outcomes.

    ceiling: calls under way at once, at most.
    proven: the endpoint has answered such calls before, so a refusal is of one call and not of all.
    live: it has done so just now, so an address where nothing listens is a passing trouble.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        hooks: Hooks,
        key: SecretStr | None,
        *,
        ceiling: int,
        quota: QuotaClient | None = None,
        proven: bool = False,
        live: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.hooks = hooks
        self.slots = Slots(ceiling)
        self.stopped: str | None = None
        self._live = live
        self._key = key
        self._quota = quota
        self._breaker = Breaker(endpoint.breaker_failures, endpoint.breaker_s, proven=proven)
        # One probe at a time: calls that are refused together wait here, in their slots, and the first one's probe tells all.
        # Whoever holds it waits for one reply of the endpoint, at most `timeout_s`, and for no other lock.
        self._probing = asyncio.Lock()
        self._client = open_client(endpoint, key, ceiling)
        # The event loop holds tasks weakly; without this set a call under way could be garbage collected.
        self._tasks: set[asyncio.Task[None]] = set()
        # `collect` waits for the event, which says that the list is not empty. Calls that end set it and never wait.
        self._finished: list[Outcome] = []
        self._something = asyncio.Event()

    async def begin(self, calls: Sequence[Call]) -> None:
        """Start calls, each in a task of its own; does not wait for them."""
        for call in calls:
            task = asyncio.create_task(self._run(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def collect(self) -> list[Outcome]:
        """Outcomes since the last time, at least one; waits for it. One caller at a time."""
        await self._something.wait()
        await asyncio.sleep(COLLECT_S)
        finished, self._finished = self._finished, []
        self._something.clear()
        return finished

    async def close(self) -> None:
        """Cancel the calls under way and close the client."""
        for task in list(self._tasks):
            task.cancel()
        await self._client.close()

    async def _run(self, call: Call) -> None:
        spent = _Attempts(Outcome(call.key), call.attempts or self.endpoint.max_attempts)
        try:
            self._conclude(await self._until_over(call, spent), spent)
        except Exception as error:  # a call must not be lost without a word: who waits for it would wait for ever
            spent.outcome.error = self._hide(f"internal: {type(error).__name__}: {error}")
        self._finished.append(spent.outcome)
        self._something.set()

    async def _until_over(self, call: Call, spent: _Attempts) -> Decision:
        """Attempts, until a decision ends the call."""
        while (decision := await self._attempt(call, spent)).ends == "retry":
            await asyncio.sleep(decision.pause_s)
        return decision

    def _conclude(self, decision: Decision, spent: _Attempts) -> None:
        assert decision.ends != "retry"
        spent.outcome.ended = decision.ends
        if decision.ends != "done":
            spent.outcome.error = shortened(self._hide(decision.error) or "")
            spent.outcome.reply = shortened(self._hide(spent.faults[-1].raw_reply) or "") or None

    async def _attempt(self, call: Call, spent: _Attempts) -> Decision:
        asked_at = time.monotonic()
        estimate = estimated_tokens(call.messages) + self.endpoint.max_tokens // 2
        if self._quota is not None:
            await asyncio.sleep(await self._quota.reserve(estimate))
        sent_at = await self.slots.acquire(ahead=bool(spent.faults))
        spent.waited += time.monotonic() - asked_at if spent.started is not None else 0.0
        try:
            self._check_open()
            reply = await self._send(call, spent, estimate)
            self._book(call, spent.outcome, reply)
            self._came_through()
            self.hooks.parse(reply.content)
            spent.outcome.reply = self._hide(reply.content)
            return DONE
        except Fault as fault:
            return self._within_limits(await self._learn(fault, sent_at, call, spent), spent)
        finally:
            self.slots.release()

    def _check_open(self) -> None:
        if self.stopped is not None:
            raise Fault("fatal", self.stopped)

    async def _send(self, call: Call, spent: _Attempts, estimate: int) -> Reply:
        spent.started = spent.started or time.monotonic()
        spent.outcome.attempts += 1
        timeout = min(self.endpoint.timeout_s, self._seconds_left(spent))
        reply = await complete(self._client, self.endpoint, self.hooks, call.messages, timeout)
        if self._quota is not None and reply.prompt_tokens is not None:
            await self._quota.settle(reply.prompt_tokens + (reply.completion_tokens or 0) - estimate)
        return reply

    def _came_through(self) -> None:
        self._live = True
        self._breaker.succeeded()
        self.slots.succeeded()

    async def _learn(self, fault: Fault, sent_at: float, call: Call, spent: _Attempts) -> Decision:
        """Note what a fault says of the call and of the endpoint, and decide how the call goes on, its limits aside."""
        spent.faults.append(fault)
        spent.counted += fault.kind != "busy"
        spent.unusable += fault.kind == "unusable"
        # A web page in place of a reply says "wrong address" before any success, and "a proxy hiccuped" after one.
        kind: FaultKind = "passing" if fault.kind == "page" and self._breaker.proven else fault.kind
        if isinstance(fault, BilledFault):
            self._book(call, spent.outcome, fault.reply)
            self._breaker.succeeded()
        if kind == "busy":
            return self._learn_busy(fault, sent_at)
        if kind in ("passing", "unreachable"):
            spent.outcome.unsure_cost += attempt_cost(self.endpoint, call.messages) if kind == "passing" else 0.0
            return self._learn_failure(fault, kind)
        if kind == "fatal":
            return self._stop(str(fault))
        if kind in ("barred", "refused", "page"):
            return await self._learn_refusal(fault, spent)
        return _again(kind, fault)

    def _learn_busy(self, fault: Fault, sent_at: float) -> Decision:
        """Slow down; stop where the endpoint takes nothing for as long as a call may take at all."""
        longest = self.endpoint.deadline_s
        if (fault.retry_after or 0.0) > longest or self._breaker.starved(longest):
            return self._stop(f"the endpoint takes nothing within {longest:g} s: {fault}")
        self.slots.busy(sent_at, fault.retry_after)
        return _again("busy", fault)

    def _learn_failure(self, fault: Fault, kind: FaultKind) -> Decision:
        """Stop growing where the endpoint seems strained; stop altogether where it is down."""
        if fault.strained:
            self.slots.troubled()
        if self._breaker.failed():
            return self._stop(f"the endpoint is down: failure after failure, the last: {fault}")
        return _again(kind, fault)

    async def _learn_refusal(self, fault: Fault, spent: _Attempts) -> Decision:
        """Probe with a harmless question where nothing has come through yet: the refusal may be of every call."""
        async with self._probing:
            if not self._breaker.proven and self.stopped is None:
                await self._probe(spent)
        return Decision("failed", f"refused: {fault}") if self.stopped is None else Decision("stopped", self.stopped)

    async def _probe(self, spent: _Attempts) -> None:
        messages = self.hooks.messages(self.hooks.probe)
        spent.outcome.unsure_cost += attempt_cost(self.endpoint, messages)
        try:
            await complete(self._client, self.endpoint, self.hooks, messages, self.endpoint.timeout_s)
            self._breaker.succeeded()
        except BilledFault:
            self._breaker.succeeded()
        except Fault as same:
            if same.kind in ("barred", "refused", "page", "fatal"):
                self._stop(str(same))

    def _within_limits(self, decision: Decision, spent: _Attempts) -> Decision:
        """The decision, with the pause of a retry; where attempts or time are used up, a retry becomes a failure."""
        if decision.ends != "retry":
            return decision
        fault = spent.faults[-1]
        if spent.counted >= spent.allowed or spent.unusable >= MAX_UNUSABLE:
            return replace(decision, ends="failed")
        if fault.kind == "unreachable" and not self._live and spent.counted >= MAX_UNREACHABLE:
            return self._stop(f"nothing answers at {self.endpoint.base_url}: {fault}")
        pause = self._pause(spent)
        late = self._seconds_left(spent) - pause < SHORTEST_ATTEMPT * self.endpoint.timeout_s
        return replace(decision, ends="failed") if late else replace(decision, pause_s=pause)

    def _pause(self, spent: _Attempts) -> float:
        """Seconds before the next attempt, with full jitter (Brooker 2015): up to a bound that doubles with each attempt.

        What the endpoint asked for comes on top.
        """
        bound = min(FIRST_BACKOFF_S * 2 ** min(len(spent.faults), 16), LONGEST_BACKOFF_S)
        return random.uniform(0, bound) + (spent.faults[-1].retry_after or 0)

    def _seconds_left(self, spent: _Attempts) -> float:
        now = time.monotonic()
        return self.endpoint.deadline_s - (now - (spent.started or now) - spent.waited)

    def _stop(self, reason: str) -> Decision:
        """End this call and every later one; the first reason stays."""
        self.stopped = self.stopped or reason
        return Decision("stopped", self.stopped)

    def _book(self, call: Call, outcome: Outcome, reply: Reply) -> None:
        """Add a reply's tokens, cost and latency to the outcome."""
        if reply.prompt_tokens is None:
            outcome.unsure_cost += attempt_cost(self.endpoint, call.messages)
        outcome.latency_ms = round(reply.latency_ms, 1)
        outcome.prompt_tokens += reply.prompt_tokens or 0
        outcome.completion_tokens += reply.completion_tokens or 0
        if (price := self.endpoint.price) is not None:
            counts = reply.prompt_tokens or 0, reply.completion_tokens or 0, reply.cached_tokens
            outcome.cost = (outcome.cost or 0) + price.cost(*counts)

    def _hide(self, text: str | None) -> str | None:
        """The text with the key blanked out, should an endpoint send it back."""
        secret = self._key.get_secret_value() if self._key is not None else ""
        return text.replace(secret, HIDDEN) if text is not None and len(secret) >= SHORTEST_SECRET else text


def _again(kind: FaultKind, fault: Fault) -> Decision:
    return Decision("retry", f"{kind}: {fault}")
