"""What a model card claims of its edit, read from README.md: KL divergences, and how many requests it declines.

Two forms are read: a table's row (`| KL divergence | 0.07 |`, as heretic writes it) and a sentence (`KL divergence: 0.07`,
`refusals 3/100`). What is not found is no claim.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CARD = "README.md"
LARGEST = 1 << 20  # bytes of a card that are read
NUMBER = r"(?P<value>\d+(?:\.\d+)?(?:e-?\d+)?)"
BETWEEN = r"[^0-9\n]{0,24}?"  # bold signs, bars, a colon, "of", "is"
KL = re.compile(rf"\bKL(?:[ -]div(?:ergence|\.)?)?\b{BETWEEN}{NUMBER}", re.IGNORECASE)
DECLINED = re.compile(
    rf"\b(?:refusals?|refusal rate|declines?|declined)\b{BETWEEN}{NUMBER}\s*(?P<unit>%|/\s*(?P<total>\d+))", re.IGNORECASE
)
FAR = 10.0  # times: a measured KL beyond this is another order of size


@dataclass(frozen=True)
class Claim:
    """A card's figure: `kind` is kl (nats) or declined (a share), `said` its own words."""

    kind: str
    value: float
    said: str


def claims_of(folder: Path) -> list[Claim]:
    """The claims of a folder's card, the first of each kind; none where there is no card."""
    file = folder / CARD
    if not file.is_file():
        return []
    with file.open("rb") as stream:
        text = stream.read(LARGEST).decode(errors="replace")
    return claims_in(text)


def claims_in(text: str) -> list[Claim]:
    """The claims of a card's text, the first of each kind."""
    found = []
    if match := KL.search(text):
        found.append(Claim("kl", float(match["value"]), _words(match.group())))
    if match := DECLINED.search(text):
        whole = float(match["total"] or 100)
        if whole and float(match["value"]) <= whole:
            found.append(Claim("declined", float(match["value"]) / whole, _words(match.group())))
    return found


def against(claim: Claim, measured: Mapping[str, Any] | None) -> str:
    """A claim beside what was measured, in words: inside the interval, outside, or of another order of size."""
    value = None if measured is None else measured["value"]
    if measured is None or value is None:
        return "not measured"
    low, high = (value if measured[end] is None else measured[end] for end in ("low", "high"))
    if low <= claim.value <= high:
        return "inside the interval"
    if claim.kind == "kl" and claim.value > 0 and value / claim.value >= FAR:
        return f"outside: {value / claim.value:.0f} times as large"
    return "outside the interval"


def _words(text: str) -> str:
    return " ".join(re.sub(r"[|*`]", " ", text).split())
