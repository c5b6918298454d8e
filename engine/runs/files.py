"""The names and formats of the files in a run directory."""

import math
from collections.abc import Mapping
from typing import Any

PRODUCTS, SCREEN = "product_by_layer.png", "screen_by_layer.png"


ROLLOUTS, LIKELIHOODS = "rollouts.parquet", "likelihoods.parquet"


SCORES, SUMMARY = "scores.parquet", "summary.json"


DIGITS = 6


FORMAT = 3  # raise where a study's file changes its content: older ones are left out of reports, and made again


def headed(variant: str, options: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """A study's file: format, variant and options, then what was found, rounded."""
    return dict(rounded({"format": FORMAT, "variant": variant, "options": dict(options), **content}))


def rounded(value: Any) -> Any:
    """A table for JSON: floats to six significant digits, None for those that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
