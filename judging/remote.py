"""A judge behind an endpoint: items in, judgements out in the items' order, with a cache and a fan-out between.

judge = RemoteJudge("deepseek", Asker(endpoint, rubric, cache_path, starters), rubric)
judge.ask(items)           # returns soon; calls go on in the background
judge.drain()
judge.grade(items)         # list[Judgement], one per item, in order; missing ones with their error
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from judging.advice import advice
from judging.budget import Budget
from judging.cache import ReplyCache, Stored
from judging.calls import Call
from judging.crew import Starter
from judging.endpoint import Endpoint
from judging.errors import Fault, JudgeError
from judging.fanout import Counts, Fanout
from judging.judge import Hooks
from judging.judgement import Item, Judgement
from judging.replies import shortened
from judging.rubric import Rubric

CALLS_A_BATCH = 256


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    value: the parsed reply; None where there is none, with `error` saying why.
    stored: the cached call; None where it was never made.
    """

    key: bytes
    value: Any
    stored: Stored | None
    error: str | None


class Asker:
    """Asks one kind of question (`hooks`) at one endpoint, through the cache."""

    def __init__(
        self,
        endpoint: Endpoint,
        hooks: Hooks,
        cache_path: Path,
        starters: Sequence[Starter],
        *,
        budget: Budget | None = None,
        say: Callable[[str], None] = print,
        on_wait: Callable[[Counts], None] = lambda counts: None,
    ) -> None:
        endpoint.check_price(budget.limit if budget is not None else None)
        self.endpoint, self.hooks = endpoint, hooks
        self.fanout = Fanout(endpoint, cache_path, starters, budget=budget, say=say, on_wait=on_wait)
        self._cache_path, self.say = cache_path, say
        # The caller's own connection to the cache, opened when first read: the fan-out's belongs to the fan-out's thread.
        self._reader: ReplyCache | None = None
        self._shared = shared_address(endpoint, hooks, hooks.first_message)

    def ask(self, items: Sequence[Any]) -> None:
        """Ask about items in the background; waits where they come faster than calls are made."""
        for start in range(0, len(items), CALLS_A_BATCH):
            self.fanout.enqueue([self._call(item) for item in items[start : start + CALLS_A_BATCH]])

    def offer(self, items: Sequence[Any]) -> None:
        """Ask about items without waiting. Those that find no room, or no thread, are left out."""
        self.fanout.offer([self._call(item) for item in items])

    def drain(self) -> None:
        """Wait for the answers. Raises JudgeError for an endpoint that took no call, where none was cached either."""
        self.fanout.drain()
        counts = self.fanout.counts
        if self.fanout.stopped and not self.fanout.stopped_by_cost and not counts.done and not counts.cached:
            raise JudgeError(
                f"The judge at {self.endpoint.base_url} ({self.endpoint.model}) takes no calls: {self.fanout.stopped}. "
                + advice(self.endpoint, self.fanout.stopped)
            )

    def answers(self, items: Sequence[Any]) -> list[Answer]:
        """The answers to each item, in order; one that is missing says why."""
        if self._reader is None:
            self._reader = ReplyCache(self._cache_path, self.say)
        keys = [self._call(item).key for item in items]
        stored = self._reader.get(keys)
        return [self._answer(key, stored.get(key)) for key in keys]

    def close(self) -> None:
        """Stop asking; what is stored stays."""
        self.fanout.close()
        if self._reader is not None:
            self._reader.close()

    def _call(self, item: Any) -> Call:
        return call_of(self.endpoint, self.hooks, item, self._shared)

    def _answer(self, key: bytes, stored: Stored | None) -> Answer:
        if stored is None:
            return Answer(key, None, None, f"not asked: {self.fanout.stopped or 'judging was stopped'}")
        if stored.error is not None or stored.reply is None:
            return Answer(key, None, stored, stored.error or "no reply")
        try:
            return Answer(key, self.hooks.parse(stored.reply), stored, None)
        except Fault as fault:
            assert self._reader is not None
            self._reader.forget([key])
            return Answer(key, None, stored, f"{fault.kind}: {fault}")


def call_of(endpoint: Endpoint, hooks: Hooks, item: Any, shared: Any = None) -> Call:
    """The call that asks about an item.

    Its address is a hash of endpoint, model, sampling, rubric, messages and repeat.
    shared: `shared_address` of the first message, where the caller keeps it; it is the same for all items.
    """
    messages = hooks.messages(item)
    address = (shared or shared_address(endpoint, hooks, messages[0])).copy()
    for message in messages[1:]:
        address.update(f"\0{message['role']}\0{message['content']}".encode("utf-8", "replace"))
    address.update(f"\0{getattr(item, 'repeat', 0)}".encode())
    return Call(address.digest(), messages)


def shared_address(endpoint: Endpoint, hooks: Hooks, first: Mapping[str, str]) -> Any:
    """The hash, so far, of the part that all items' addresses begin with."""
    return hashlib.sha256(json.dumps([endpoint.sampling, hooks.hash, first], sort_keys=True).encode())


class RemoteJudge:
    """A language model behind an endpoint as a judge."""

    def __init__(self, name: str, asker: Asker, rubric: Rubric) -> None:
        self.name = name
        self.model = f"{asker.endpoint.model} at {asker.endpoint.base_url}"
        self.notice = f"language model {self.model}"
        self.rubric_hash = rubric.hash
        self.asker = asker
        self._charged: set[bytes] = set()
        self._other_models: set[str] = set()

    def ask(self, items: Sequence[Item]) -> None:
        """Ask for judgements in the background; waits where items come faster than calls are made."""
        self.asker.ask(items)

    def offer(self, items: Sequence[Item]) -> None:
        """Ask without waiting. Items that find no room are left out."""
        self.asker.offer(items)

    @property
    def stopped(self) -> str | None:
        return self.asker.fanout.stopped

    @property
    def report(self) -> dict[str, Any]:
        """Calls, tokens, seconds and costs of this process; `stopped` says why it gave up, if it did."""
        return {**asdict(self.asker.fanout.counts), "stopped": self.stopped}

    def drain(self) -> None:
        """Wait until every item asked about is judged or has failed."""
        self.asker.drain()

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        """One judgement per item, in order; a missing one says why.

        Items that share a call share its judgement, and the first of them bears its cost. So a sum over rows is what was paid.
        """
        judgements = []
        for answer in self.asker.answers(items):
            shared = answer.key in self._charged
            self._charged.add(answer.key)
            found = _judgement(answer)
            self._tell_of_model(found.reply_model)
            judgements.append(replace(found, cost=0.0) if shared and found.cost is not None else found)
        return judgements

    def _tell_of_model(self, model: str | None) -> None:
        """Say once of each other model that answered in the place of the one that was asked."""
        asked = self.asker.endpoint.model
        if model not in (None, asked, *self._other_models):
            self._other_models.add(str(model))
            self.asker.say(f"judge {self.name}: '{asked}' was asked, and '{model}' answered; rows hold it as reply_model")

    def close(self) -> None:
        self.asker.close()


class KeptJudge(RemoteJudge):
    """A judge that asks nobody: its answers are those that a batch has brought."""

    def ask(self, items: Sequence[Item]) -> None:
        """Nothing: what no batch answered stays unanswered."""

    def offer(self, items: Sequence[Item]) -> None:
        """Nothing."""

    def drain(self) -> None:
        """Nothing is under way."""


def _judgement(answer: Answer) -> Judgement:
    missing = Judgement(None, None, None, "", error=answer.error, attempts=0)
    stored = answer.stored
    if stored is None:
        return missing
    return replace(
        answer.value or missing,
        raw_reply=None if stored.reply is None else shortened(stored.reply),
        attempts=stored.attempts,
        latency_ms=stored.latency_ms,
        prompt_tokens=stored.prompt_tokens,
        completion_tokens=stored.completion_tokens,
        cost=stored.cost,
        reply_model=stored.model,
    )
