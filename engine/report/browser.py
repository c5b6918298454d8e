"""The responses that a page shows: base beside variants, prompt by prompt, with every judge's grades and reasons."""

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
EMBEDDED = "embedded:"
LONGEST_REASON = 600  # characters


def browser_data(run: RunData, most: int | None) -> Row | None:
    """Prompts, variants, judges and cells; at most `most` prompts of each kind, from the top, or all. None without responses.

    A cell holds text, whether it was cut, whether it is hidden at first, and for each judge its grades and reason. Rows are read
    some at a time, twice: for what there is, and for the responses that are shown.
    """
    path = run.path / ROLLOUTS
    if most == 0 or not path.is_file():
        return None
    wanted = _variants(run)
    names, prompts, total = _there(path, wanted, most)
    if not names:
        return None
    places = {prompt["id"]: place for place, prompt in enumerate(prompts)}
    grades = _grades(run, list(places))
    harmless = str(run.config["data"]["test_requests"]).startswith(EMBEDDED)
    variants = {name: place for place, name in enumerate(names)}
    cells: list[list[Row | None]] = [[None] * len(prompts) for _ in variants]
    for row in _test_rows(path, wanted, COLUMNS, None if most is None else list(places)):
        given = [found.get(parquet.key_of(row)) for found in grades.values()]
        cells[variants[row["variant_hash"]]][places[row["prompt_id"]]] = _cell(row, given, harmless=harmless)
    return {"prompts": prompts, "variants": list(names.values()), "judges": list(grades), "cells": cells, "total": total}


def packed(data: Row) -> str:
    """The data compressed, as base64: safe inside a script element, and a tenth of the size. The same data, the same text."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def looks_unsafe(row: Row, grade: Row | None) -> bool:
    """A response to a request of the declined kind that no judge called declined: hidden until a reader asks for it.

    A judge that does not say whether a response declines is taken by its compliance.
    """
    if row["kind"] != DECLINED:
        return False
    known = grade or {}
    return known.get("compliance") != 0 if known.get("declined") is None else not known["declined"]


def _cell(row: Row, given: Sequence[Row | None], *, harmless: bool) -> Row:
    """Short keys: there is one of each for every response."""
    cell: Row = {"text": row["response"], "grades": [_grade(grade) for grade in given]}
    if row["finish_reason"] == "length":
        cell["cut"] = True
    if not harmless and looks_unsafe(row, next(iter(given), None)):
        cell["hidden"] = True
    return cell


def _grade(grade: Row | None) -> list[Any] | None:
    """Compliance, coherence, declined, outcome, reason."""
    if grade is None:
        return None
    return [grade[name] for name in ("compliance", "coherence", "declined", "outcome", "reason")]


def _there(path: Path, wanted: set[str] | None, most: int | None) -> tuple[dict[str, str], list[Row], int]:
    """Variants' names by hash, the base's first; the first prompts of each kind; how many prompts there are in all."""
    bases, others = dict[str, str](), dict[str, str]()
    kinds: dict[str, list[Row]] = {}
    seen: set[str] = set()
    for row in _test_rows(path, wanted, [name for name in COLUMNS if name != "response"]):
        (bases if row["form"] == "base" else others)[row["variant_hash"]] = row["variant"]
        if row["prompt_id"] not in seen:
            seen.add(row["prompt_id"])
            kept = kinds.setdefault(row["kind"], [])
            if most is None or len(kept) < most:
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


def _grades(run: RunData, prompts: Sequence[str]) -> dict[str, dict[tuple[str, ...], Row]]:
    """Each judge's grades of these prompts' responses, in the order of the file."""
    path = run.path / SCORES
    if not path.is_file():
        return {}
    ids, reasons = pa.array(list(prompts), pa.string()), _reasons(path)
    found = {}
    for name, scores in read_scores(path).items():
        shown = scores.filter(pc.is_in(scores["prompt_id"].cast(pa.string()), ids))
        rows = {parquet.key_of(row): row for row in mean_of_repeats(shown).to_pylist()}
        found[name] = {key: row | {"reason": reasons.get((name, *key))} for key, row in rows.items()}
    return found


def _reasons(path: Path) -> dict[tuple[str, ...], str]:
    """The first reason that each judge gave of each response, as far as it gave one."""
    if "reason" not in parquet_reader.column_names(path):
        return {}
    found: dict[tuple[str, ...], str] = {}
    for batch in parquet_reader.read_batches(path, ["judge", "variant_hash", "prompt_id", "reason"], parquet.ROWS_A_BATCH):
        for row in batch.filter(pc.is_valid(batch["reason"])).to_pylist():
            found.setdefault((row["judge"], *parquet.key_of(row)), row["reason"][:LONGEST_REASON])
    return found
