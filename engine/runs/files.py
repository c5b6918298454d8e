"""The names and formats of the files in a run directory."""

import math
from collections.abc import Mapping
from typing import Any

# Of every run.
MANIFEST, SUMMARY = "manifest.json", "summary.json"
DIRECTIONS = "directions.safetensors"
ROLLOUTS, LIKELIHOODS, VIEWS, SCORES = "rollouts.parquet", "likelihoods.parquet", "views.parquet", "scores.parquet"
REPORT, PLOT_FOLDER = "report.html", "plots"
# Of sweeps.
SCREENED, SWEEP, WINNER = "screen.parquet", "sweep.parquet", "winner.toml"
TIMES, TIMING = "times.json", "timing.json"  # apart from the summary, which is the same however often a sweep was stopped
PRODUCTS, SCREEN, FRONT = "product_by_layer.png", "screen_by_layer.png", "front.png"
VARIANTS = "variants"  # a TOML for each variant of a sweep that is worth a command of its own
# Added to a run by other commands.
JUDGED = "judged.json"  # what bin/judge found in a sweep, whose own summary stays as it is
BENCH, BENCH_ROWS = "bench.json", "bench.parquet"
BEHAVIOUR = "behaviour.json"

DIGITS = 6
RUN_FORMAT = "refusal-run/2"  # since 2 the manifest holds the hash of every file that the run wrote
READABLE_FORMATS = ("refusal-run/1", RUN_FORMAT)
RUN, SWEEP_RUN = "run", "sweep"  # the kinds of run directories
STUDY_FORMAT = 5  # raise where a study's file changes its content: older ones are left out of reports, and made again


def is_own(name: str) -> bool:
    """Whether a file of a run directory is of the run or sweep itself, and was not added by another command."""
    return name in (SUMMARY, TIMING) or (name.endswith((".toml", ".parquet", ".safetensors")) and name != BENCH_ROWS)


def headed(variant: str, options: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """A study's file: format, variant and options, then what was found, rounded."""
    return dict(rounded({"format": STUDY_FORMAT, "variant": variant, "options": dict(options), **content}))


def rounded(value: Any) -> Any:
    """A table for JSON: floats to six significant digits, None for those that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
