"""What judging will take before anything is sent: calls, tokens, cost and duration at the configured limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from judging.attempts import duration
from judging.costs import attempt_cost, estimated_tokens, likely_cost
from judging.endpoint import Endpoint
from judging.judge import Message

ASSUMED_LATENCY_S = 2.0  # of a call, where none was measured


@dataclass(frozen=True)
class Estimate:
    """Calls and what they take. Tokens are rough, from bytes; costs are None without a price.

    completion_tokens: at most. likely_cost: with answers half as long as max_tokens allows. most_cost: with the longest, each
    call asked once. seconds: at the setting that binds, which `limited_by` names.
    """

    calls: int
    prompt_tokens: int
    completion_tokens: int
    likely_cost: float | None
    most_cost: float | None
    currency: str
    seconds: float
    limited_by: str

    def __str__(self) -> str:
        cost = "the price is not known: no [endpoint.prices] for this model"
        if self.likely_cost is not None:
            cost = f"about {self.likely_cost:.4f} {self.currency}, at most {self.most_cost:.4f}"
        return (
            f"{self.calls} calls; about {self.prompt_tokens} prompt tokens, at most {self.completion_tokens} of answers; {cost}; "
            f"about {duration(self.seconds)} ({self.limited_by})"
        )


def estimate(endpoint: Endpoint, questions: Sequence[Sequence[Message]], latency_s: float | None = None) -> Estimate:
    """What asking these questions will take. latency_s: of one call; None assumes ASSUMED_LATENCY_S."""
    prompt = sum(estimated_tokens(messages) for messages in questions)
    seconds, limited_by = _slowest(endpoint, len(questions), prompt, latency_s)
    priced = endpoint.price is not None
    return Estimate(
        calls=len(questions),
        prompt_tokens=prompt,
        completion_tokens=len(questions) * endpoint.max_tokens,
        likely_cost=sum(likely_cost(endpoint, messages) for messages in questions) if priced else None,
        most_cost=sum(attempt_cost(endpoint, messages) for messages in questions) if priced else None,
        currency=endpoint.currency,
        seconds=seconds,
        limited_by=limited_by,
    )


def _slowest(endpoint: Endpoint, calls: int, prompt_tokens: int, latency_s: float | None) -> tuple[float, str]:
    """Seconds at the limit that binds, and its name."""
    rounds = -(-calls // endpoint.max_concurrency)
    one, whence = (ASSUMED_LATENCY_S, "assumed") if latency_s is None else (latency_s, "measured")
    found = [(rounds * one, f"max_concurrency = {endpoint.max_concurrency}, {one:.2g} s a call {whence}")]
    if endpoint.requests_per_minute:
        found.append((60 * calls / endpoint.requests_per_minute, f"requests_per_minute = {endpoint.requests_per_minute}"))
    if endpoint.tokens_per_minute:
        tokens = prompt_tokens + calls * endpoint.max_tokens // 2
        found.append((60 * tokens / endpoint.tokens_per_minute, f"tokens_per_minute = {endpoint.tokens_per_minute}"))
    return max(found)
