"""Tokens and costs of calls before they are made, in the price table's currency: a likely figure and upper bounds.

Without a price every cost here is 0.
"""

from collections.abc import Sequence

from judging.calls import Call
from judging.endpoint import Endpoint
from judging.judge import Message

BYTES_PER_TOKEN = 3.5


def estimated_tokens(messages: Sequence[Message]) -> int:
    """A rough number of tokens in messages, from their bytes."""
    return int(sum(len(message["content"].encode()) for message in messages) / BYTES_PER_TOKEN)


def most_tokens(messages: Sequence[Message]) -> int:
    """An upper bound on the tokens in messages: a token of text is a byte at least, and a template adds a few to each."""
    return sum(len(message["content"].encode()) + 64 for message in messages)


def fewest_tokens(messages: Sequence[Message]) -> int:
    """A lower bound on the tokens of the first message, the instructions: English prose has no token of ten characters."""
    return len(messages[0]["content"]) // 10


def likely_cost(endpoint: Endpoint, messages: Sequence[Message]) -> float:
    """A rough cost of one call."""
    price = endpoint.price
    return price.cost(estimated_tokens(messages), endpoint.max_tokens // 2) if price else 0.0


def attempt_cost(endpoint: Endpoint, messages: Sequence[Message]) -> float:
    """An upper bound on the cost of one attempt."""
    price = endpoint.price
    return price.cost(most_tokens(messages), endpoint.max_tokens) if price else 0.0


def worst_cost(endpoint: Endpoint, call: Call) -> float:
    """An upper bound on the cost of one call: all its attempts, and the probe that follows a refusal."""
    return ((call.attempts or endpoint.max_attempts) + 1) * attempt_cost(endpoint, call.messages)
