"""The responses that a page shows: base beside variants, prompt by prompt, with the first judge's grades."""

import json
from typing import Any

import pyarrow.parquet as pq

from engine import store
from engine.report.collect import RunData
from engine.session import DECLINED
from engine.summary import mean_of_repeats, read_scores

COLUMNS = ["variant", "variant_hash", "prompt_id", "split", "kind", "category", "prompt", "response", "finish_reason", "form"]
HIDDEN_KINDS = ("random", "shuffled")
Row = dict[str, Any]


def browser_data(run: RunData, most: int) -> Row | None:
    """Prompts, variants and cells; at most `most` prompts of each kind, from the top. None where there are no responses."""
    if most == 0 or not (run.path / "rollouts.parquet").is_file():
        return None
    wanted = _variants(run)
    rows = [
        row
        for row in pq.read_table(run.path / "rollouts.parquet", columns=COLUMNS).to_pylist()
        if row["split"] == "test" and (wanted is None or row["variant_hash"] in wanted)
    ]
    if not rows:
        return None
    judge, grades = _grades(run)
    prompts, total = _prompts(rows, most)
    places = {prompt["id"]: place for place, prompt in enumerate(prompts)}
    variants = list(dict.fromkeys(row["variant_hash"] for row in sorted(rows, key=lambda row: row["form"] != "base")))
    names = {row["variant_hash"]: row["variant"] for row in rows}
    cells: list[list[Row | None]] = [[None] * len(prompts) for _ in variants]
    for row in rows:
        if row["prompt_id"] in places:
            cell = _cell(row, grades.get(store.key_of(row)))
            cells[variants.index(row["variant_hash"])][places[row["prompt_id"]]] = cell
    shown = {"prompts": prompts, "variants": [names[key] for key in variants], "cells": cells}
    return shown | {"total": total, "judge": judge}


def as_script(data: Row) -> str:
    """JSON that is safe inside a script element: no `<` can end it."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def looks_unsafe(row: Row, grade: Row | None) -> bool:
    """A response to a request of the declined kind that no judge called declined: hidden until clicked.

    A judge that does not say whether a response declines is taken by its compliance.
    """
    if row["kind"] != DECLINED:
        return False
    known = grade or {}
    return known.get("compliance") != 0 if known.get("declined") is None else not known["declined"]


def _cell(row: Row, grade: Row | None) -> Row:
    grade_of = grade or {}
    return {
        "text": row["response"],
        "compliance": grade_of.get("compliance"),
        "coherence": grade_of.get("coherence"),
        "declined": grade_of.get("declined"),
        "cut": row["finish_reason"] == "length",
        "hidden": looks_unsafe(row, grade),
    }


def _prompts(rows: list[Row], most: int) -> tuple[list[Row], int]:
    """The first prompts of each kind, and how many there are in all."""
    found: dict[str, Row] = {}
    for row in rows:
        known = {"id": row["prompt_id"], "kind": row["kind"], "category": row["category"], "text": row["prompt"]}
        found.setdefault(row["prompt_id"], known)
    kept: list[Row] = []
    for kind in dict.fromkeys(prompt["kind"] for prompt in found.values()):
        kept += [prompt for prompt in found.values() if prompt["kind"] == kind][:most]
    return kept, len(found)


def _variants(run: RunData) -> set[str] | None:
    """A sweep's base and finalists, without controls; None for all of a run's."""
    if not run.is_sweep:
        return None
    return {row["variant_hash"] for row in run.summary["confirm"] if row["kind"] not in HIDDEN_KINDS}


def _grades(run: RunData) -> tuple[str, dict[tuple[str, str], Row]]:
    """The first judge of the file, and its grades."""
    if not (run.path / "scores.parquet").is_file():
        return "", {}
    judges = read_scores(run.path / "scores.parquet")
    name = next(iter(judges), "")
    return name, mean_of_repeats(judges[name]) if name else {}
