"""What a figure is of: how many kinds, which outcomes, and of prompts that were sampled several times the variances."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from engine.runs.requests import prompt_of
from engine.runs.schemas import Row
from judging.kinds import components
from judging.outcomes import OUTCOMES


def samples_of(scored: pa.Table) -> Row | None:
    """Where prompts were sampled several times: the number of prompts, and each figure's variance between and within them."""
    prompts = [prompt_of(name) for name in scored["prompt_id"].to_pylist()]
    if len(set(prompts)) == len(prompts):
        return None
    grades = {name: scored[name].to_pylist() for name in ("declined", "compliance", "coherence")}
    grades["product"] = [one * other for one, other in zip(grades["compliance"], grades["coherence"], strict=True)]
    return {"prompts": len(set(prompts)), **{name: _variances(values, prompts) for name, values in grades.items()}}


def _variances(values: Sequence[float | None], prompts: Sequence[str]) -> Row | None:
    """The variance of grades between prompts and within them, and the share between; None where it cannot be told."""
    known = [(float(value), prompt) for value, prompt in zip(values, prompts, strict=True) if value is not None]
    found = components([value for value, _ in known], [prompt for _, prompt in known])
    return None if found is None else {**asdict(found), "share_between": found.share_between}


def kinds_of(categories: Sequence[str]) -> int | None:
    """The number of kinds among prompts; None where no prompt names one, so that each is its own."""
    named = {category for category in categories if category}
    return len(named) + sum(not category for category in categories) if named else None


def mix_of(outcomes: Sequence[str | None]) -> dict[str, int] | None:
    """How many responses had each outcome, in the set's order; None where the judge gives none."""
    counts = Counter(outcomes)
    return {name: counts[name] for name in OUTCOMES} if counts.keys() - {None} else None
