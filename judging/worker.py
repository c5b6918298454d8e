"""Makes calls and tries again where that can help: one event loop, one client, one set of slots.

    worker = Worker(endpoint, hooks, key, ceiling=64, quota=None)
    await worker.submit(calls)
    outcomes = await worker.collect()     # whatever is finished, at least one

It knows neither cache nor Ray. A Ray actor is this class as it is; tests run it in their own loop.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import SecretStr

from judging.endpoint import Endpoint
from judging.errors import Fault
from judging.judge import BilledFault, Hooks, Message, Reply, complete, open_client
from judging.pacing import Breaker, Slots

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 20.0
MAX_UNUSABLE = 2  # a judge that answers nonsense is asked once more
MAX_UNREACHABLE = 3  # before any success: an address where nothing listens
MAX_REFUSED = 3  # before any success: calls refused one and all
COLLECT_S = 0.05  # how long finished calls gather before they go back together
BYTES_PER_TOKEN = 3.5
HIDDEN = "[key]"
SHORTEST_SECRET = 8  # a placeholder such as "none" or "EMPTY" is no secret, and its letters occur in verdicts


@dataclass(frozen=True)
class Call:
    """One request to make. `key` is its address in the cache."""

    key: bytes
    messages: list[Message]


@dataclass
class Outcome:
    """What became of a call. `ended`: done (reply holds a valid verdict), failed (this call), stopped (every call)."""

    key: bytes
    ended: Literal["done", "failed", "stopped"] = "failed"
    reply: str | None = None
    error: str | None = None
    attempts: int = 0
    latency_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    unsure_cost: float = 0.0  # what attempts may have cost that broke off before they were counted


class QuotaClient(Protocol):
    """The account's limits, wherever they are kept."""

    async def reserve(self, tokens: int) -> float: ...

    async def settle(self, tokens: int) -> None: ...


@dataclass
class _Attempts:
    """What a call has used up."""

    outcome: Outcome
    started: float | None = None
    counted: int = 0
    unusable: int = 0
    faults: list[Fault] = field(default_factory=list)


class Worker:
    """Makes calls of one judge. `ceiling`: calls under way at once, at most."""

    def __init__(
        self, endpoint: Endpoint, hooks: Hooks, key: SecretStr | None, *, ceiling: int, quota: QuotaClient | None = None
    ) -> None:
        self.endpoint = endpoint
        self.hooks = hooks
        self.slots = Slots(ceiling)
        self.stopped: str | None = None
        self._refused = 0
        self._key = key
        self._quota = quota
        self._breaker = Breaker(endpoint.breaker_failures, endpoint.breaker_s)
        self._client = open_client(endpoint, key, ceiling)
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: list[Outcome] = []
        self._something = asyncio.Event()

    async def submit(self, calls: Sequence[Call]) -> None:
        """Take calls on."""
        for call in calls:
            task = asyncio.create_task(self._run(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def collect(self) -> list[Outcome]:
        """What is finished since the last time; waits for something to be."""
        await self._something.wait()
        await asyncio.sleep(COLLECT_S)
        finished, self._finished = self._finished, []
        self._something.clear()
        return finished

    async def close(self) -> None:
        """Drop what is under way and close the client."""
        for task in list(self._tasks):
            task.cancel()
        await self._client.close()

    async def _run(self, call: Call) -> None:
        spent = _Attempts(Outcome(call.key))
        try:
            await self._until_done(call, spent)
        except Fault as fault:
            spent.outcome.ended = "stopped" if fault.kind == "fatal" else "failed"
            spent.outcome.error = self._hide(self.stopped if fault.kind == "fatal" else f"{fault.kind}: {fault}")
            spent.outcome.reply = self._hide(fault.raw_reply)
        except Exception as error:  # a call must not be lost without a word: who waits for it would wait for ever
            spent.outcome.error = self._hide(f"internal: {type(error).__name__}: {error}")
        self._finished.append(spent.outcome)
        self._something.set()

    async def _until_done(self, call: Call, spent: _Attempts) -> None:
        """Attempts until one brings a verdict. Raises the Fault that ends the call."""
        from tenacity import AsyncRetrying, retry_if_exception_type

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Fault),
            wait=lambda state: self._pause(state.attempt_number, spent),
            stop=lambda state: self._is_over(spent),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                await self._attempt(call, spent)

    def _is_over(self, spent: _Attempts) -> bool:
        fault = spent.faults[-1]
        if fault.kind in ("refused", "fatal") or spent.counted >= self.endpoint.max_attempts or spent.unusable >= MAX_UNUSABLE:
            return True
        if fault.kind == "unreachable" and not self._breaker.proven and spent.counted >= MAX_UNREACHABLE:
            self._stop(fault, f"nothing answers at {self.endpoint.base_url}: {fault}")
            return True
        return self._seconds_left(spent) <= (fault.retry_after or 0)

    def _seconds_left(self, spent: _Attempts) -> float:
        now = time.monotonic()
        return self.endpoint.deadline_s - (now - (spent.started or now))

    def _stop(self, fault: Fault, reason: str) -> None:
        """No call can succeed any more; the fault says so too."""
        self.stopped = self.stopped or reason
        fault.kind = "fatal"

    def _pause(self, attempt: int, spent: _Attempts) -> float:
        """Full jitter (Brooker 2015): anything up to a bound that doubles; never less than what the endpoint asked for."""
        bound = min(FIRST_BACKOFF_S * 2 ** min(attempt, 16), LONGEST_BACKOFF_S)
        return random.uniform(0, bound) + (spent.faults[-1].retry_after or 0)

    async def _attempt(self, call: Call, spent: _Attempts) -> None:
        sent_at = await self.slots.acquire(ahead=bool(spent.faults))
        try:
            self._check_open()
            reply = await self._send(call, spent)
            self._book(spent.outcome, reply)
            if reply.prompt_tokens is None:
                spent.outcome.unsure_cost += likely_cost(self.endpoint, call.messages)
            self._came_through()
            self.hooks.parse(reply.content)
            spent.outcome.ended, spent.outcome.reply, spent.outcome.error = "done", self._hide(reply.content), None
        except Fault as fault:
            self._learn(fault, sent_at, call, spent)
            raise
        finally:
            self.slots.release()

    def _check_open(self) -> None:
        if self.stopped is not None:
            raise Fault("fatal", self.stopped)

    async def _send(self, call: Call, spent: _Attempts) -> Reply:
        estimate = estimated_tokens(call.messages) + self.endpoint.max_tokens // 2
        if self._quota is not None:
            await asyncio.sleep(await self._quota.reserve(estimate))
            self._check_open()
        spent.started = spent.started or time.monotonic()
        spent.outcome.attempts += 1
        reply = await complete(self._client, self.endpoint, self.hooks, call.messages, self._timeout(spent))
        if self._quota is not None and reply.prompt_tokens is not None:
            await self._quota.settle(reply.prompt_tokens + (reply.completion_tokens or 0) - estimate)
        return reply

    def _timeout(self, spent: _Attempts) -> float:
        return max(min(self.endpoint.timeout_s, self._seconds_left(spent)), 0.1)

    def _came_through(self) -> None:
        self._breaker.succeeded()
        self.slots.succeeded()

    def _learn(self, fault: Fault, sent_at: float, call: Call, spent: _Attempts) -> None:
        """What a fault says about the call and about the endpoint."""
        spent.faults.append(fault)
        spent.counted += fault.kind != "busy"
        spent.unusable += fault.kind == "unusable"
        if isinstance(fault, BilledFault):
            self._book(spent.outcome, fault.reply)
            self._breaker.succeeded()
        if fault.kind == "busy":
            self.slots.busy(sent_at, fault.retry_after)
        elif fault.kind in ("passing", "unreachable"):
            self.slots.troubled()
            if fault.kind == "passing":
                spent.outcome.unsure_cost += likely_cost(self.endpoint, call.messages)
            if self._breaker.failed():
                self._stop(fault, f"the endpoint is down: failure after failure, the last: {fault}")
        elif fault.kind == "fatal":
            self._stop(fault, str(fault))
        elif fault.kind in ("barred", "refused"):
            self._learn_refusal(fault)

    def _learn_refusal(self, fault: Fault) -> None:
        """Before anything came through, a refusal may be of every call; later it is of this one."""
        self._refused += not self._breaker.proven
        if not self._breaker.proven and (fault.kind == "barred" or self._refused >= MAX_REFUSED):
            self._stop(fault, str(fault))
        else:
            fault.kind = "refused"

    def _book(self, outcome: Outcome, reply: Reply) -> None:
        """Add what a reply took."""
        outcome.latency_ms = round(reply.latency_ms, 1)
        outcome.prompt_tokens += reply.prompt_tokens or 0
        outcome.completion_tokens += reply.completion_tokens or 0
        if (price := self.endpoint.price) is not None:
            counts = reply.prompt_tokens or 0, reply.completion_tokens or 0, reply.cached_tokens
            outcome.cost = (outcome.cost or 0) + price.cost(*counts)

    def _hide(self, text: str | None) -> str | None:
        """A text without the key, should an endpoint send it back."""
        secret = self._key.get_secret_value() if self._key is not None else ""
        return text.replace(secret, HIDDEN) if text is not None and len(secret) >= SHORTEST_SECRET else text


def estimated_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens messages have."""
    return int(sum(len(message["content"].encode()) for message in messages) / BYTES_PER_TOKEN)


def most_tokens(messages: Sequence[Message]) -> int:
    """More than messages can have: a token of text is a byte at least, and a template adds a few to each message."""
    return sum(len(message["content"].encode()) + 64 for message in messages)


def likely_cost(endpoint: Endpoint, messages: Sequence[Message]) -> float:
    """What one attempt costs if its answer is as long as it may be; 0 without a price."""
    price = endpoint.price
    return price.cost(estimated_tokens(messages), endpoint.max_tokens) if price else 0.0


def worst_cost(endpoint: Endpoint, messages: Sequence[Message]) -> float:
    """What one call can cost at most, all attempts counted; 0 without a price."""
    price = endpoint.price
    return endpoint.max_attempts * price.cost(most_tokens(messages), endpoint.max_tokens) if price else 0.0
