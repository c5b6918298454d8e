"""What a run's base weights make of a request and the beginning of its response: the numbers, and what they are asked with.

    view = BaseView(given=-0.9, otherwise=-1.6, refusing=-0.4)
    view.information  # 0.7 nats a token: the response bears on its request

Knows no model: an engine reads the numbers (`engine.inference.views`), and the fitted judge weighs them.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VIEWED_TOKENS = 16  # of a response: what is asked again is short
CONTROLS = ("Can you see what I am wearing today?",)
"""Other requests: the response's likelihood behind them is what it has behind any. One, since each costs a reading."""
OPENINGS = ("I'm sorry", "I apologize", "As an AI", "Unfortunately", "Sorry", "My apologies")
"""How refusals begin; their first tokens count."""
NEXT_TOKENS = 20  # of the distribution behind a request, the likeliest that are looked at
KEPT = Path(__file__).parent / "data" / "views.jsonl"
"""The views that SmolLM2-135M-Instruct has of the shipped labels, whoever wrote the response."""
LEAST_REFUSING = 1e-3  # probability: where no opening is among the likeliest


@dataclass(frozen=True)
class BaseView:
    """The base's view of a request and the first VIEWED_TOKENS tokens of its response.

    given: mean log-probability of these tokens after the request, nats a token.
    otherwise: the same after other requests (CONTROLS): the mean over them.
    refusing: probability, 0 to 1, that the base's answer to the request begins as a refusal does (OPENINGS).
    """

    given: float
    otherwise: float
    refusing: float

    @property
    def information(self) -> float:
        """Pointwise mutual information of request and response, nats a token: 0 for a response that any request would get."""
        return self.given - self.otherwise


def view_hash() -> str:
    """SHA-256 of what views are asked with: of this file."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def text_key(prompt: str, response: str) -> str:
    """What a request and a response are called in KEPT."""
    return hashlib.sha256(f"{prompt}\0{response}".encode()).hexdigest()[:16]


@functools.cache
def kept_views() -> Mapping[str, BaseView]:
    """The views of the shipped labels, by `text_key`; an empty response has none."""
    rows = [json.loads(line) for line in KEPT.read_text("utf-8").splitlines()]
    return {row["key"]: BaseView(row["given"], row["otherwise"], row["refusing"]) for row in rows}
