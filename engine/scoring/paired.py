"""Variants against their base, and kinds that made the directions against kinds that did not: differences and their tests."""

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from engine.runs.kinds import SEEN, TEST
from engine.runs.schemas import Row
from judging.bias import apart
from judging.kinds import sign_flip_p
from judging.statistics import MISSING, Estimate, Figure, difference

SCALES = ("declined", "compliance", "product")


def against_base(rows: pa.Table, base: pa.Table) -> Row:
    """Declined share, compliance and product less the base's on the same prompts, each with its interval and p over kinds.

    rows, base: one variant's and the base's scored responses to the same requests.
    """
    theirs = {row["prompt_id"]: row for row in _scored(base)}
    pairs = [(row, theirs[row["prompt_id"]]) for row in _scored(rows) if row["prompt_id"] in theirs]
    return {name: _difference(pairs, name) for name in SCALES}


def _difference(pairs: Sequence[tuple[Row, Row]], name: str) -> Row:
    known = [(mine[name], theirs[name], mine["category"]) for mine, theirs in pairs if None not in (mine[name], theirs[name])]
    if len(known) < 2:
        return {**asdict(MISSING), "p": None}
    mine, theirs, kinds = (list(column) for column in zip(*known, strict=True))
    found = difference(Figure.mean_of(mine), Figure.mean_of(theirs), kinds)
    p = sign_flip_p([one - other for one, other in zip(mine, theirs, strict=True)], kinds)
    return {**asdict(found), "p": p}


def _scored(rows: pa.Table) -> list[Row]:
    """Each response's grades as numbers, with its product."""
    named = rows.select(["prompt_id", "category", "compliance", "coherence", "declined"]).to_pylist()
    for row in named:
        both = (row["compliance"], row["coherence"])
        row["product"] = None if None in both else both[0] * both[1]
        row["declined"] = None if row["declined"] is None else float(row["declined"])
    return named


def split_differences(figures: Sequence[Row]) -> list[Row]:
    """Where kinds are split: each variant's rates on kinds that made no directions, less those on kinds that did."""
    groups = {(row["judge"], row["variant"], row["kind"], row["split"]): row for row in figures}
    found = []
    for (judge, variant, kind, split), row in groups.items():
        seen = groups.get((judge, variant, kind, SEEN))
        if split == TEST and seen is not None:
            rates = {name: asdict(apart(Estimate(**row[name]), Estimate(**seen[name]))) for name in SCALES}
            found.append({"judge": judge, "variant": variant, "kind": kind, **rates})
    return found
