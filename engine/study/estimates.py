"""Figures of the extraction library, [value, 2.5 %, 97.5 %], as the one estimate type that every file and table has."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from extraction.kinds import Kinds
from judging.statistics import Estimate

OVER_KINDS = "percentile bootstrap over kinds"
OVER_PAIRS = "percentile bootstrap over pairs"
OVER_PROMPTS = "percentile bootstrap over prompts of each side"
OVER_KIND_SPLITS = "median and quantiles over random halves of the kinds"
OVER_KIND_LABELS = "median and quantiles over shuffled labels of whole kinds"
OVER_SPLITS = "median and quantiles over random halves"
OVER_LABELS = "median and quantiles over shuffled labels"


def over(kinds: Sequence[str] | None, *, alone: str = OVER_PAIRS, by_kind: str = OVER_KINDS) -> str:
    """The method's name: `by_kind` where prompts come in kinds, `alone` where each is its own."""
    return alone if kinds is None or Kinds.of(kinds, len(kinds)).alone else by_kind


def table_of(triple: Sequence[float], n: int, method: str) -> dict[str, Any]:
    """An estimate's table: value, low, high, `n` and `method`."""
    value, low, high = triple
    return asdict(Estimate(value, low, high, n, method))
