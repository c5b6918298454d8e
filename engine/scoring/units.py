"""What a figure is of: how many kinds, which outcomes and languages, what missing scores could be, and of prompts that were
sampled several times the variances.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc

from engine.runs.requests import prompt_of
from engine.runs.schemas import Row
from judging import statistics
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


def languages_of(rows: pa.Table, scored: pa.Table) -> list[Row] | None:
    """The rates of each language that prompts name, in order of appearance; None where all are of one.

    rows: all of a variant's; scored: those with both grades. `language` is "" for prompts that name none.
    """
    if "language" not in rows.column_names:
        return None
    names = list(dict.fromkeys(name or "" for name in rows["language"].to_pylist()))
    return [_rates_in(name, _in_language(rows, name), _in_language(scored, name)) for name in names] if len(names) > 1 else None


def _in_language(rows: pa.Table, name: str) -> pa.Table:
    return rows.filter(pc.equal(pc.fill_null(rows["language"].cast(pa.string()), ""), name))


def _rates_in(name: str, rows: pa.Table, scored: pa.Table) -> Row:
    said = rows.filter(pc.is_valid(rows["declined"]))
    figures = {
        "declined": statistics.rate(said["declined"].to_pylist(), said["category"].to_pylist()),
        **statistics.of_grades(*(scored[column].to_pylist() for column in ("compliance", "coherence", "category"))),
    }
    return {"language": name, "n": len(rows), **{key: asdict(value) for key, value in figures.items()}}


def bounds_of(figures: Mapping[str, statistics.Estimate], total: int) -> Row | None:
    """Each mean with the missing scores at 0 and at 1: [lowest, highest]; None where none is missing.

    total: responses, scored or not. Manski (1989). A product of means is no mean, so it has no bounds of this kind.
    """
    if all(estimate.n == total for estimate in figures.values()):
        return None
    found = {}
    for name, estimate in figures.items():
        if name != statistics.PRODUCT_OF_MEANS:
            known = (estimate.value or 0.0) * estimate.n
            found[name] = [known / total, (known + total - estimate.n) / total]
    return found
