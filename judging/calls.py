"""A call on its way to an endpoint, and its outcome on the way back: what fan-out, crews, workers and cache hand each other."""

from dataclasses import dataclass
from typing import Literal

from judging.judge import Message


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
    latency_ms: of the last attempt that brought a reply. Tokens and cost are sums over the attempts.
    cost: in the price table's currency; None without a price.
    unsure_cost: the most that attempts can have cost which broke off before they were counted.
    """

    key: bytes
    ended: Literal["done", "failed", "stopped"] = "failed"
    reply: str | None = None
    error: str | None = None
    attempts: int = 0
    latency_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    unsure_cost: float = 0.0
