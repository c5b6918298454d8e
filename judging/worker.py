"""Makes calls and makes them again where that can help: one event loop, one client, one set of slots.

    worker = Worker(endpoint, hooks, key, ceiling=64, quota=None)
    await worker.begin(calls)
    outcomes = await worker.collect()     # those that have ended, at least one

It knows neither cache nor Ray. A Ray actor is this class as it is, and tests run it in their own loop.
Every task runs in one event loop, so plain fields need no lock: nothing else runs between two awaits.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from pydantic import SecretStr

from judging.attempts import DONE, Attempts, Decision, again, duration
from judging.calls import Call, Outcome
from judging.completion import BilledFault, Reply
from judging.costs import attempt_cost, estimated_tokens, fewest_tokens
from judging.endpoint import Endpoint
from judging.errors import Fault, FaultKind
from judging.hiding import hide
from judging.judge import Hooks
from judging.network import complete, open_client
from judging.pacing import Breaker, Slots
from judging.replies import shortened
from judging.request import Fields

MAX_UNREACHABLE = 3  # before any success: an address where nothing listens
COLLECT_S = 0.01  # how long finished calls gather before they go back together


class QuotaClient(Protocol):
    """The account's rate limits, wherever they are kept."""

    async def reserve(self, tokens: int) -> float:
        """Seconds to wait before a request of about `tokens` tokens is sent."""

    async def settle(self, tokens: int) -> None:
        """Correct the estimate: `tokens` more (or, negative, fewer) were used."""


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
        self._fields = Fields()
        self._loading_since: float | None = None
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
        spent = Attempts(Outcome(call.key), call.attempts or self.endpoint.max_attempts, self.endpoint)
        try:
            self._conclude(await self._until_over(call, spent), spent)
        except Exception as error:  # a call must not be lost without a word: who waits for it would wait for ever
            spent.outcome.error = self._hide(f"internal: {type(error).__name__}: {error}")
        self._finished.append(spent.outcome)
        self._something.set()

    async def _until_over(self, call: Call, spent: Attempts) -> Decision:
        """Attempts, until a decision ends the call."""
        while (decision := await self._attempt(call, spent)).ends == "retry":
            await asyncio.sleep(decision.pause_s)
        return decision

    def _conclude(self, decision: Decision, spent: Attempts) -> None:
        assert decision.ends != "retry"
        spent.outcome.ended = decision.ends
        if decision.ends != "done":
            spent.outcome.error = shortened(self._hide(decision.error) or "")
            spent.outcome.reply = shortened(self._hide(spent.faults[-1].raw_reply) or "") or None

    async def _attempt(self, call: Call, spent: Attempts) -> Decision:
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
            return spent.within_limits(await self._learn(fault, sent_at, call, spent))
        finally:
            self.slots.release()

    def _check_open(self) -> None:
        if self.stopped is not None:
            raise Fault("fatal", self.stopped)

    async def _send(self, call: Call, spent: Attempts, estimate: int) -> Reply:
        spent.started = spent.started or time.monotonic()
        spent.outcome.attempts += 1
        timeout = min(self.endpoint.timeout_s, spent.seconds_left())
        request = self._fields.request(self.endpoint, self.hooks, call.messages)
        try:
            reply = await complete(self._client, request, timeout)
        except Fault as fault:
            raise self._adapted(fault, request, spent) or fault from None
        self._fields.took(request)
        if self._quota is not None and reply.prompt_tokens is not None and reply.completion_tokens is not None:
            await self._quota.settle(reply.prompt_tokens + reply.completion_tokens - estimate)
        return reply

    def _adapted(self, fault: Fault, request: dict[str, Any], spent: Attempts) -> Fault | None:
        """The fault of a refused field that the next attempt goes without; None for any other fault."""
        known = set(self._fields.left_out)
        field = self._fields.learn(request, fault)
        if field is None:
            return None
        if field not in known:  # else another call has just learned it
            note = f"{field} is left out from now on: the endpoint refuses it ({self._hide(str(fault))})"
            spent.outcome.notes[f"refuses {field}"] = note
        return Fault("adapted", str(fault))

    def _came_through(self) -> None:
        self._live = True
        self._loading_since = None
        self._breaker.succeeded()
        self.slots.succeeded()

    async def _learn(self, fault: Fault, sent_at: float, call: Call, spent: Attempts) -> Decision:
        """Note what a fault says of the call and of the endpoint, and decide how the call goes on, its limits aside."""
        spent.note(fault)
        # A web page in place of a reply says "wrong address" before any success, and "a proxy hiccuped" after one.
        kind: FaultKind = "passing" if fault.kind == "page" and self._breaker.proven else fault.kind
        if isinstance(fault, BilledFault):
            self._book(call, spent.outcome, fault.reply)
            self._breaker.succeeded()
        if kind == "adapted":
            return again(kind, fault)
        if kind == "loading":
            return self._learn_loading(fault, spent)
        if kind == "busy":
            return self._learn_busy(fault, sent_at)
        if kind in ("passing", "unreachable"):
            spent.outcome.unsure_cost += attempt_cost(self.endpoint, call.messages) if kind == "passing" else 0.0
            return self._learn_failure(fault, kind, spent)
        if kind == "fatal":
            return self._stop(str(fault))
        if kind in ("barred", "refused", "page"):
            return await self._learn_refusal(fault, spent)
        return again(kind, fault)

    def _learn_busy(self, fault: Fault, sent_at: float) -> Decision:
        """Slow down; stop where the endpoint takes nothing for as long as a call may take at all."""
        longest, asked = self.endpoint.deadline_s, fault.retry_after or 0.0
        if asked > longest or self._breaker.starved(longest):
            pause = f", it asks for a pause of {duration(asked)}" if asked > longest else ""
            return self._stop(f"the endpoint takes nothing within {longest:g} s (deadline_s){pause}: {fault}")
        self.slots.busy(sent_at, fault.retry_after)
        return again("busy", fault)

    def _learn_loading(self, fault: Fault, spent: Attempts) -> Decision:
        """Wait for a server that is loading, up to `loading_s` in all; the call's own clock starts afterwards."""
        now = time.monotonic()
        self._loading_since = now if self._loading_since is None else self._loading_since
        if now - self._loading_since > self.endpoint.loading_s:
            return self._stop(f"the server is still loading after {self.endpoint.loading_s:g} s (loading_s): {fault}")
        spent.outcome.notes["loading"] = f"the server was loading, and was waited for ({fault})"
        spent.started = None
        return again("loading", fault)

    def _learn_failure(self, fault: Fault, kind: FaultKind, spent: Attempts) -> Decision:
        """Stop growing where the endpoint seems strained; stop altogether where it is down."""
        if fault.strained:
            self.slots.troubled()
        if self._breaker.failed():
            return self._stop(f"the endpoint is down: failure after failure, the last: {fault}")
        if kind == "unreachable" and not self._live and MAX_UNREACHABLE <= spent.counted < spent.allowed:
            return self._stop(f"nothing answers at {self.endpoint.base_url}: {fault}")
        return again(kind, fault)

    async def _learn_refusal(self, fault: Fault, spent: Attempts) -> Decision:
        """Probe with a harmless question where nothing has come through yet: the refusal may be of every call."""
        async with self._probing:
            if not self._breaker.proven and self.stopped is None:
                await self._probe(spent)
        return Decision("failed", f"refused: {fault}") if self.stopped is None else Decision("stopped", self.stopped)

    async def _probe(self, spent: Attempts) -> None:
        messages = self.hooks.messages(self.hooks.probe)
        spent.outcome.unsure_cost += attempt_cost(self.endpoint, messages)
        try:
            await complete(self._client, self._fields.request(self.endpoint, self.hooks, messages), self.endpoint.timeout_s)
            self._breaker.succeeded()
        except BilledFault:
            self._breaker.succeeded()
        except Fault as same:
            if same.kind in ("barred", "refused", "page", "fatal"):
                self._stop(str(same))

    def _stop(self, reason: str) -> Decision:
        """End this call and every later one; the first reason stays."""
        self.stopped = self.stopped or reason
        return Decision("stopped", self.stopped)

    def _book(self, call: Call, outcome: Outcome, reply: Reply) -> None:
        """Add a reply's tokens, cost and latency to the outcome, and note what they tell of the endpoint."""
        outcome.book(reply, self.endpoint.price, attempt_cost(self.endpoint, call.messages))
        if not reply.is_counted:
            outcome.notes["uncounted"] = "the endpoint does not count all tokens: they, and costs, are missing from the rows"
        if reply.prompt_tokens is not None and reply.prompt_tokens < fewest_tokens(call.messages):
            outcome.notes["cut"] = (
                f"the endpoint counted {reply.prompt_tokens} prompt tokens where about {estimated_tokens(call.messages)} were "
                "sent: it may have cut the question (Ollama: num_ctx), or leave cached tokens out of the count"
            )

    def _hide(self, text: str | None) -> str | None:
        """The text with the key blanked out, should an endpoint send it back."""
        secret = self._key.get_secret_value() if self._key is not None else ""
        return None if text is None else hide(text, secret)
