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
from judging.replies import shortened

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 20.0
SHORTEST_ATTEMPT = 0.1  # of the timeout: less time than this is not worth a paid call
MAX_UNUSABLE = 2  # a judge that answers nonsense is asked once more
MAX_UNREACHABLE = 3  # before any success: an address where nothing listens
COLLECT_S = 0.01  # how long finished calls gather before they go back together
BYTES_PER_TOKEN = 3.5
HIDDEN = "[key]"
SHORTEST_SECRET = 8  # a placeholder such as "none" or "EMPTY" is no secret, and its letters occur in verdicts


@dataclass(frozen=True)
class Call:
    """One request to make. `key` is its address in the cache; `attempts` are all it may take, None as many as any call."""

    key: bytes
    messages: list[Message]
    attempts: int | None = None


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
    """What a call has used up, and how many attempts it may take."""

    outcome: Outcome
    allowed: int
    started: float | None = None
    waited: float = 0.0  # for a slot or the account's limits, after the first attempt
    counted: int = 0
    unusable: int = 0
    faults: list[Fault] = field(default_factory=list)


class Worker:
    """Makes calls of one judge. `ceiling`: calls under way at once, at most.

    `proven`: the endpoint has answered such calls before, so one that it refuses is the only one. `live`: it did just now.
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
        self._probing = asyncio.Lock()
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
        spent = _Attempts(Outcome(call.key), call.attempts or self.endpoint.max_attempts)
        try:
            await self._until_done(call, spent)
        except Fault as fault:
            spent.outcome.ended = "stopped" if fault.kind == "fatal" else "failed"
            error = self.stopped if fault.kind == "fatal" else f"{fault.kind}: {fault}"
            spent.outcome.error = shortened(self._hide(error) or "")
            spent.outcome.reply = shortened(self._hide(fault.raw_reply) or "") or None
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
            stop=lambda state: self._is_over(spent, state.upcoming_sleep),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                await self._attempt(call, spent)

    def _is_over(self, spent: _Attempts, pause: float) -> bool:
        fault = spent.faults[-1]
        if fault.kind in ("refused", "fatal") or spent.counted >= spent.allowed or spent.unusable >= MAX_UNUSABLE:
            return True
        if fault.kind == "unreachable" and not self._live and spent.counted >= MAX_UNREACHABLE:
            self._stop(fault, f"nothing answers at {self.endpoint.base_url}: {fault}")
            return True
        return self._seconds_left(spent) - pause < SHORTEST_ATTEMPT * self.endpoint.timeout_s

    def _seconds_left(self, spent: _Attempts) -> float:
        now = time.monotonic()
        return self.endpoint.deadline_s - (now - (spent.started or now) - spent.waited)

    def _stop(self, fault: Fault, reason: str) -> None:
        """No call can succeed any more; the fault says so too."""
        self.stopped = self.stopped or reason
        fault.kind = "fatal"

    def _pause(self, attempt: int, spent: _Attempts) -> float:
        """Full jitter (Brooker 2015): anything up to a bound that doubles; never less than what the endpoint asked for."""
        bound = min(FIRST_BACKOFF_S * 2 ** min(attempt, 16), LONGEST_BACKOFF_S)
        return random.uniform(0, bound) + (spent.faults[-1].retry_after or 0)

    async def _attempt(self, call: Call, spent: _Attempts) -> None:
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
            spent.outcome.ended, spent.outcome.reply, spent.outcome.error = "done", self._hide(reply.content), None
        except Fault as fault:
            await self._learn(fault, sent_at, call, spent)
            raise
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

    async def _learn(self, fault: Fault, sent_at: float, call: Call, spent: _Attempts) -> None:
        """What a fault says about the call and about the endpoint."""
        spent.faults.append(fault)
        spent.counted += fault.kind != "busy"
        spent.unusable += fault.kind == "unusable"
        if fault.kind == "page" and self._breaker.proven:
            fault.kind = "passing"
        if isinstance(fault, BilledFault):
            self._book(call, spent.outcome, fault.reply)
            self._breaker.succeeded()
        if fault.kind == "busy":
            self._learn_busy(fault, sent_at)
        elif fault.kind in ("passing", "unreachable"):
            spent.outcome.unsure_cost += attempt_cost(self.endpoint, call.messages) if fault.kind == "passing" else 0.0
            if fault.strained:
                self.slots.troubled()
            if self._breaker.failed():
                self._stop(fault, f"the endpoint is down: failure after failure, the last: {fault}")
        elif fault.kind == "fatal":
            self._stop(fault, str(fault))
        elif fault.kind in ("barred", "refused", "page"):
            await self._learn_refusal(fault, spent)

    def _learn_busy(self, fault: Fault, sent_at: float) -> None:
        """Slower; but not slower than a call may take at all."""
        longest = self.endpoint.deadline_s
        if (fault.retry_after or 0.0) > longest or self._breaker.starved(longest):
            self._stop(fault, f"the endpoint takes nothing within {longest:g} s: {fault}")
        else:
            self.slots.busy(sent_at, fault.retry_after)

    async def _learn_refusal(self, fault: Fault, spent: _Attempts) -> None:
        """Before anything came through, a refusal may be of every call: a harmless question tells."""
        async with self._probing:
            if not self._breaker.proven and self.stopped is None:
                probe = self.hooks.messages(self.hooks.probe)
                spent.outcome.unsure_cost += attempt_cost(self.endpoint, probe)
                try:
                    await complete(self._client, self.endpoint, self.hooks, probe, self.endpoint.timeout_s)
                    self._breaker.succeeded()
                except BilledFault:
                    self._breaker.succeeded()
                except Fault as same:
                    if same.kind in ("barred", "refused", "page", "fatal"):
                        self._stop(fault, str(same))
        fault.kind = "fatal" if self.stopped is not None else "refused"

    def _book(self, call: Call, outcome: Outcome, reply: Reply) -> None:
        """Add what a reply took."""
        if reply.prompt_tokens is None:
            outcome.unsure_cost += attempt_cost(self.endpoint, call.messages)
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
    """About what a call costs; 0 without a price."""
    price = endpoint.price
    return price.cost(estimated_tokens(messages), endpoint.max_tokens // 2) if price else 0.0


def attempt_cost(endpoint: Endpoint, messages: Sequence[Message]) -> float:
    """What one attempt can cost at most; 0 without a price."""
    price = endpoint.price
    return price.cost(most_tokens(messages), endpoint.max_tokens) if price else 0.0


def worst_cost(endpoint: Endpoint, call: Call) -> float:
    """What one call can cost at most: all its attempts, and a harmless question should it be refused; 0 without a price."""
    return ((call.attempts or endpoint.max_attempts) + 1) * attempt_cost(endpoint, call.messages)
