"""What cards say, in the forms that tools write it, against what was measured."""

from typing import Any

import pytest

from engine.compare.claims import Claim, against, claims_in

TABLE = """| Metric | This model | Original model |
| :----- | :--------: | :---------------------------: |
| **KL divergence** | 0.0687 | 0 *(by definition)* |
| **Refusals** | 3/100 | 97/100 |
"""


def estimate(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 10, "method": ""}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (TABLE, "kl", 0.0687),
        (TABLE, "declined", 0.03),
        ("The KL divergence is 1e-3 on harmless prompts.", "kl", 0.001),
        ("Refusal rate: 12 %", "declined", 0.12),
        ("- KL-div: **0.4**", "kl", 0.4),
    ],
)
def test_a_claim_is_read_from_a_card(text: str, kind: str, value: float) -> None:
    assert [claim.value for claim in claims_in(text) if claim.kind == kind] == [pytest.approx(value)]


@pytest.mark.parametrize("text", ["", "No refusal was seen in 2024.", "It declined 5 of 3 requests: refusals 5/3.", "Klein 4 KB"])
def test_what_is_no_claim_is_none(text: str) -> None:
    assert claims_in(text) == []


@pytest.mark.parametrize(
    ("claim", "measured", "words"),
    [
        (Claim("kl", 0.1, ""), estimate(0.12, 0.08, 0.2), "inside the interval"),
        (Claim("kl", 0.01, ""), estimate(1.2, 0.8, 2.0), "outside: 120 times as large"),
        (Claim("declined", 0.03, ""), estimate(0.5, 0.4, 0.6), "outside the interval"),
        (Claim("kl", 0.1, ""), None, "not measured"),
    ],
)
def test_a_claim_stands_beside_what_was_measured(claim: Claim, measured: dict[str, Any] | None, words: str) -> None:
    assert against(claim, measured) == words
