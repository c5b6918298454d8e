"""Figures of the extraction library, [value, 2.5 %, 97.5 %], as the one estimate type that every file and table has."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from judging.statistics import Estimate

OVER_PAIRS = "percentile bootstrap over pairs"
OVER_PROMPTS = "percentile bootstrap over prompts of each side"
OVER_SPLITS = "median and quantiles over random halves"
OVER_LABELS = "median and quantiles over shuffled labels"


def table_of(triple: Sequence[float], n: int, method: str) -> dict[str, Any]:
    """An estimate's table: value, low, high, `n` and `method`."""
    value, low, high = triple
    return asdict(Estimate(value, low, high, n, method))
