"""From scored rows to a table: a row per judge, variant and kind of request, every rate with its n and 95 % interval.

Where a judge was asked several times about a response, the mean of its grades is the response's grade.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from engine import calibrations
from engine.config import RunConfig
from engine.session import DECLINED
from judging import agreement, statistics

Row = dict[str, Any]
Key = tuple[str, str]
ROLLOUT_COLUMNS = ["variant", "variant_hash", "prompt_id", "split", "kind", "form", "model", "finish_reason", "response"]
SCORE_COLUMNS = ["variant_hash", "prompt_id", "judge", "judge_model", "rubric_hash", "repeat", "error", "cost"]
GRADES = ("compliance", "coherence", "declined")


def make_summary(config: RunConfig, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of a run as JSON. Published figures stand beside the kind they were made on."""
    rollouts = read_rollouts(folder / "rollouts.parquet")
    scores = read_scores(folder / "scores.parquet")
    figures = [figure for name, rows in scores.items() for figure in figures_by(rollouts, rows, judge=name)]
    published = config.published.model_dump() if config.published else None
    for figure in figures:
        mine = published is not None and figure["form"] != "base" and figure["kind"] == DECLINED
        figure["published"] = published if mine else None
    return {
        "variant": config.variant,
        "model": next(iter(rollouts.values()))["model"],
        "layers": config.directions.layers,
        "alpha": config.edit.alpha,
        "judges": [judge_entry(name, rows, manifest) for name, rows in scores.items()],
        "agreement": agreements(scores),
        "prompts": config.data.test_requests,
        "figures": figures,
    }


def read_rollouts(path: Path) -> dict[Key, Row]:
    """What the figures need of each response; of its text only whether there is any."""
    rows: dict[Key, Row] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=ROLLOUT_COLUMNS):
            for row in batch.to_pylist():
                row["empty"] = not row.pop("response").strip()
                rows[row["variant_hash"], row["prompt_id"]] = row
    return rows


def read_scores(path: Path) -> dict[str, list[Row]]:
    """The scores by judge, in the order of the file."""
    judges: dict[str, list[Row]] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=[*SCORE_COLUMNS, *GRADES]):
            for row in batch.to_pylist():
                judges.setdefault(row["judge"], []).append(row)
    return judges


def figures_by(rollouts: Mapping[Key, Row], scores: Iterable[Row], *, judge: str) -> list[Row]:
    """Figures per variant and kind, in order of appearance, by one judge's scores."""
    graded = mean_of_repeats(scores)
    groups: dict[Key, list[Row]] = {}
    for key, row in rollouts.items():
        if key in graded:
            groups.setdefault((row["variant_hash"], row["kind"]), []).append({**row, **graded[key]})
    return [{"judge": judge, **figures_of(group)} for group in groups.values()]


def mean_of_repeats(scores: Iterable[Row]) -> dict[Key, Row]:
    """The grades of each response: the mean over repeats that gave one; for declined, what most of them say."""
    repeats: dict[Key, list[Row]] = {}
    for row in scores:
        repeats.setdefault((row["variant_hash"], row["prompt_id"]), []).append(row)
    graded = {}
    for key, rows in repeats.items():
        values = {name: [row[name] for row in rows if row[name] is not None] for name in GRADES}
        means = {name: sum(found) / len(found) if found else None for name, found in values.items()}
        graded[key] = {**means, "declined": None if means["declined"] is None else means["declined"] > 0.5}
    return graded


def figures_of(rows: Sequence[Row]) -> Row:
    """Rates and means of one variant on one kind of request. Missing scores are counted, not graded 0."""
    scored = [row for row in rows if row["compliance"] is not None and row["coherence"] is not None]
    compliance = [row["compliance"] for row in scored]
    coherence = [row["coherence"] for row in scored]
    known = [row for row in rows if row["declined"] is not None]
    return {
        "variant": rows[0]["variant"],
        "variant_hash": rows[0]["variant_hash"],
        "form": rows[0]["form"],
        "split": rows[0]["split"],
        "kind": rows[0]["kind"],
        "n": len(rows),
        "missing": len(rows) - len(scored),
        "n_declined": len(known),
        "empty": sum(row["empty"] for row in rows),
        "truncated": sum(row["finish_reason"] == "length" for row in rows),
        "declined": asdict(statistics.share(sum(row["declined"] for row in known), len(known))),
        "complied": asdict(statistics.share(sum(value == 1 for value in compliance), len(compliance))),
        **{name: asdict(estimate) for name, estimate in statistics.of_grades(compliance, coherence).items()},
    }


def judge_entry(name: str, scores: Sequence[Row], manifest: Mapping[str, Any]) -> Row:
    """Who judged, how far it can be trusted, what is missing and what it cost."""
    first = scores[0]
    costs = [row["cost"] for row in scores if row["cost"] is not None]
    return {
        **calibrations.identity_of(first),
        "notice": calibrations.notice_of(first),
        "calibration": calibrations.lookup(**calibrations.identity_of(first)),
        "repeats": 1 + max(row["repeat"] for row in scores),
        "missing": sum(row["error"] is not None for row in scores),
        "cost": sum(costs) if costs else None,
        "last_run": manifest.get("judging", {}).get(name),
    }


def agreements(scores: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Of every two judges, and of each judge with itself where it was asked more than once."""
    names = list(scores)
    found = []
    for place, name in enumerate(names):
        repeats = [_by_key(scores[name], repeat) for repeat in range(1 + max(row["repeat"] for row in scores[name]))]
        if len(repeats) > 1:
            found.append({"judges": [name], **agreement.of_repeats(repeats)})
        for other in names[place + 1 :]:
            found.append({"judges": [name, other], **agreement.of_two(_by_key(scores[name], 0), _by_key(scores[other], 0))})
    return found


def calibrations_of(scores: Path) -> list[Any]:
    """The calibrations of every judge in a table of scores: a summary is made again when one is added."""
    judges = pq.read_table(scores, columns=["judge", "judge_model", "rubric_hash"]).group_by(
        ["judge", "judge_model", "rubric_hash"]
    )
    return [calibrations.lookup(**calibrations.identity_of(row)) for row in judges.aggregate([]).to_pylist()]


def _by_key(scores: Sequence[Row], repeat: int) -> dict[Key, Row]:
    return {(row["variant_hash"], row["prompt_id"]): row for row in scores if row["repeat"] == repeat}
