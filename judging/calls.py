"""A call on its way to an endpoint, and its outcome on the way back: what fan-out, crews, workers and cache hand each other."""

from dataclasses import dataclass, field
from typing import Literal, TypeVar

from judging.completion import Reply
from judging.endpoint import Price
from judging.judge import Message

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Call:
    """One request to make.

    key: the call's address in the cache.
    attempts: how many it may take at most; None for the endpoint's own limit.
    """

    key: bytes
    messages: list[Message]
    attempts: int | None = None


@dataclass
class Outcome:
    """The end of a call, with what all its attempts took.

    ended: done (`reply` holds a valid verdict), failed (this call) or stopped (every call).
    latency_ms: of the last attempt that brought a reply; None where none did. Tokens and cost are sums over the replies that
    came, and None where a count of one of them is unknown.
    cost: in the price table's currency; None without a price too.
    unsure_cost: the most that attempts can have cost which broke off, or were not counted.
    model: the model that answered last, by the endpoint's own word.
    notes: what the endpoint turned out to do, by kind, to be said once.
    """

    key: bytes
    ended: Literal["done", "failed", "stopped"] = "failed"
    reply: str | None = None
    error: str | None = None
    attempts: int = 0
    latency_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    unsure_cost: float = 0.0
    model: str | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def book(self, reply: Reply, price: Price | None, most: float) -> None:
        """Add a reply's tokens, cost and latency. `most`: what the attempt can have cost, where it was not counted."""
        first = self.latency_ms is None
        self.latency_ms, self.model = round(reply.latency_ms, 1), reply.model
        self.prompt_tokens = reply.prompt_tokens if first else _sum(self.prompt_tokens, reply.prompt_tokens)
        self.completion_tokens = reply.completion_tokens if first else _sum(self.completion_tokens, reply.completion_tokens)
        if price is None:
            return
        cost = _cost(reply, price)
        total = cost if first else _sum(self.cost, cost)
        if total is None:  # what is known of it becomes part of what is unsure
            self.unsure_cost += (self.cost or 0.0) + (most if cost is None else cost)
        self.cost = total


def _sum(one: Number | None, other: Number | None) -> Number | None:
    """The sum, unknown where a part of it is."""
    return None if one is None or other is None else one + other


def _cost(reply: Reply, price: Price) -> float | None:
    if reply.prompt_tokens is None or reply.completion_tokens is None:
        return None
    return price.cost(reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens)
