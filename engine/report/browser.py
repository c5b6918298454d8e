"""The responses that a page shows: base beside variants, prompt by prompt, with the first judge's grades."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from engine.report.collect import RunData
from engine.runs import parquet, parquet_reader
from engine.runs.files import ROLLOUTS, SCORES
from engine.runs.requests import DECLINED
from engine.runs.schemas import Row
from engine.scoring.summary import mean_of_repeats, read_scores

COLUMNS = ["variant", "variant_hash", "prompt_id", "split", "kind", "category", "prompt", "response", "finish_reason", "form"]
HIDDEN_KINDS = ("random", "shuffled")


def browser_data(run: RunData, most: int) -> Row | None:
    """Prompts, variants and cells; at most `most` prompts of each kind, from the top. None where there are no responses.

    Rows are read some at a time, twice: for what there is, and for the responses that are shown.
    """
    path = run.path / ROLLOUTS
    if most == 0 or not path.is_file():
        return None
    wanted = _variants(run)
    names, prompts, total = _there(path, wanted, most)
    if not names:
        return None
    judge, grades = _grades(run, [prompt["id"] for prompt in prompts])
    places = {prompt["id"]: place for place, prompt in enumerate(prompts)}
    variants = {name: place for place, name in enumerate(names)}
    cells: list[list[Row | None]] = [[None] * len(prompts) for _ in variants]
    for row in _test_rows(path, wanted, COLUMNS, list(places)):
        cells[variants[row["variant_hash"]]][places[row["prompt_id"]]] = _cell(row, grades.get(parquet.key_of(row)))
    return {"prompts": prompts, "variants": list(names.values()), "cells": cells, "total": total, "judge": judge}


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


def _there(path: Path, wanted: set[str] | None, most: int) -> tuple[dict[str, str], list[Row], int]:
    """Variants' names by hash, the base's first; the first prompts of each kind; how many prompts there are in all."""
    bases, others = dict[str, str](), dict[str, str]()
    kinds: dict[str, list[Row]] = {}
    seen: set[str] = set()
    for row in _test_rows(path, wanted, [name for name in COLUMNS if name != "response"]):
        (bases if row["form"] == "base" else others)[row["variant_hash"]] = row["variant"]
        if row["prompt_id"] not in seen:
            seen.add(row["prompt_id"])
            kept = kinds.setdefault(row["kind"], [])
            if len(kept) < most:
                kept.append({"id": row["prompt_id"], "kind": row["kind"], "category": row["category"], "text": row["prompt"]})
    return bases | others, [prompt for kept in kinds.values() for prompt in kept], len(seen)


def _test_rows(
    path: Path, wanted: set[str] | None, columns: Sequence[str], prompts: Sequence[str] | None = None
) -> Iterator[Row]:
    """Rows of the test split; of some variants and prompts where they are given."""
    for batch in parquet_reader.read_batches(path, columns, parquet.ROWS_A_BATCH):
        chosen = pc.equal(batch["split"], "test")
        for name, values in (("variant_hash", wanted), ("prompt_id", prompts)):
            if values is not None:
                chosen = pc.and_(chosen, pc.is_in(batch[name], pa.array(list(values), pa.string())))
        yield from batch.filter(chosen).to_pylist()


def _variants(run: RunData) -> set[str] | None:
    """A sweep's base and finalists, without controls; None for all of a run's."""
    if not run.is_sweep:
        return None
    return {row["variant_hash"] for row in run.summary["confirm"] if row["kind"] not in HIDDEN_KINDS}


def _grades(run: RunData, prompts: Sequence[str]) -> tuple[str, dict[tuple[str, ...], Row]]:
    """The first judge of the file, and its grades of these prompts' responses."""
    if not (run.path / SCORES).is_file():
        return "", {}
    name, scores = next(iter(read_scores(run.path / SCORES).items()), ("", None))
    if scores is None:
        return name, {}
    shown = scores.filter(pc.is_in(scores["prompt_id"].cast(pa.string()), pa.array(list(prompts), pa.string())))
    return name, {parquet.key_of(row): row for row in mean_of_repeats(shown).to_pylist()}
