"""From scored rows to a table: a row per judge, variant and kind of request, every rate with its n and 95 % interval.

Where a judge was asked several times about a response, the mean of its grades is the response's grade.
Responses and scores are read as columns, names as numbers, texts not at all: a million of each take some 100 MB.
"""
# N = responses, S = scores

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.configs.conditions import conditions_of
from engine.configs.schema import RunConfig
from engine.runs import parquet_reader
from engine.runs.files import ROLLOUTS, RUN, SCORES
from engine.runs.requests import DECLINED, across_conditions
from engine.runs.schemas import Row
from engine.scoring import biases, calibrations
from engine.scoring.paired import against_base, split_differences
from engine.scoring.units import bounds_of, kinds_of, languages_of, mix_of, samples_of
from judging import agreement, statistics
from judging.kinds import effective_n, icc

Key = tuple[str, str]
KEY = ["variant_hash", "prompt_id"]
ROWS_A_BATCH = 16_384
ROLLOUT_COLUMNS = ["variant", "variant_hash", "prompt_id", "split", "kind", "category", "form", "model", "finish_reason"]
LANGUAGE, CONDITION = "language", "condition"
ADDED = (LANGUAGE, CONDITION)  # columns that a run of before them lacks
ROLLOUT_COLUMNS += ADDED
SCORE_COLUMNS = ["variant_hash", "prompt_id", "judge", "judge_model", "rubric_hash", "repeat", "error", "cost"]
GRADES = ("compliance", "coherence", "declined")
HARM, OUTCOME = "harm", "outcome"
NUMBERS = (*GRADES, HARM)
LATER = {OUTCOME: pa.string(), HARM: pa.float64()}  # columns that a run of before them lacks


def make_summary(config: RunConfig, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of a run as JSON. Published figures stand beside the kind they were made on."""
    rollouts = read_rollouts(folder / ROLLOUTS)
    scores = read_scores(folder / SCORES)
    own = conditions_of(config)[0].label
    figures = [figure for name, rows in scores.items() for figure in figures_by(rollouts, rows, judge=name)]
    judges = [judge_entry(name, rows, manifest) for name, rows in scores.items()]
    model = rollouts["model"][0].as_py()
    biases.add_biases(figures, judges, model)
    published = config.published.model_dump() if config.published else None
    for figure in figures:
        mine = published is not None and figure["form"] != "base" and figure["kind"] == DECLINED
        figure["published"] = published if mine else None
    return {
        "kind": RUN,
        "variant": config.variant,
        "model": model,
        "layers": [] if config.checkpoint is not None else config.directions.layers,
        "alpha": config.edit.alpha,
        "judges": judges,
        "agreement": agreements(scores),
        "differential": biases.differential([figure for figure in figures if figure["condition"] == own]),
        "unseen_kinds": split_differences([figure for figure in figures if figure["condition"] == own]),
        "conditions": [row for name, rows in scores.items() for row in condition_differences(rollouts, rows, judge=name)],
        "prompts": config.data.test_requests,
        "figures": figures,
    }


def read_rollouts(path: Path) -> pa.Table:
    """The columns that figures need, in the order of the file; of a response's text only whether there is any (`empty`)."""
    parts = []
    known = parquet_reader.column_names(path)
    there = [name for name in ROLLOUT_COLUMNS if name not in ADDED or name in known]
    for batch in _batches(path, [*there, "response"], there):
        empty = [not text.strip() for text in batch["response"].to_pylist()]
        for name in ADDED:
            if name not in there:
                batch = batch.append_column(name, pa.array([""] * len(batch)).dictionary_encode())
        parts.append(batch.select(ROLLOUT_COLUMNS).append_column("empty", pa.array(empty, pa.bool_())))
    return pa.Table.from_batches(parts).unify_dictionaries().combine_chunks()


def read_scores(path: Path) -> dict[str, pa.Table]:
    """The scores by judge, in the order of the file."""
    names = ["variant_hash", "prompt_id", "judge", "judge_model", "rubric_hash", "error"]
    there = parquet_reader.column_names(path)
    told = [name for name in LATER if name in there]
    as_numbers = [*names, *({OUTCOME} & set(told))]
    table = pa.Table.from_batches(_batches(path, [*SCORE_COLUMNS, *GRADES, *told], as_numbers)).unify_dictionaries()
    table = table.combine_chunks()
    for name in LATER.keys() - set(told):
        table = table.append_column(name, pa.nulls(len(table), LATER[name]))
    judges = table["judge"].cast(pa.string())
    return {judge: table.filter(pc.equal(judges, judge)) for judge in judges.unique().to_pylist()}


def _batches(path: Path, columns: Sequence[str], names: list[str]) -> Iterator[pa.RecordBatch]:
    """A file's columns, some rows at a time; `names` as numbers with a dictionary."""
    return parquet_reader.read_batches(path, columns, ROWS_A_BATCH, names)


def figures_by(rollouts: pa.Table, scores: pa.Table, *, judge: str) -> list[Row]:
    """Figures per variant, kind and condition, in order of appearance, by one judge's scores."""
    groups = list(_graded_groups(rollouts, scores))
    found = [{"judge": judge, **figures_of(group)} for group in groups]
    bases = {_place(row): group for row, group in zip(found, groups, strict=True) if row["form"] == "base"}
    for row, group in zip(found, groups, strict=True):
        base = bases.get(_place(row))
        row["against_base"] = None if row["form"] == "base" or base is None else against_base(group, base)
    return found


def condition_differences(rollouts: pa.Table, scores: pa.Table, *, judge: str) -> list[Row]:
    """Where prompts were asked under several conditions: each variant's rates less those under the first, prompt by prompt."""
    first: dict[tuple[str, str, str], pa.Table] = {}
    found = []
    for group in _graded_groups(rollouts, scores):
        names = {name: group[name][0].as_py() for name in ("variant", "variant_hash", "kind", "split", CONDITION)}
        key = (names["variant_hash"], names["kind"], names["split"])
        aligned = group.set_column(
            group.column_names.index("prompt_id"), "prompt_id", pa.array(map(across_conditions, group["prompt_id"].to_pylist()))
        )
        if key in first:
            found.append({"judge": judge, **names, **against_base(aligned, first[key])})
        elif names[CONDITION]:
            first[key] = aligned
    return found


def _place(figure: Row) -> tuple[str, str, str]:
    return figure["kind"], figure["split"], figure[CONDITION]


def _graded_groups(rollouts: pa.Table, scores: pa.Table) -> Iterator[pa.Table]:
    """The scored rows of each variant, kind, split and condition, in order of appearance."""
    graded = mean_of_repeats(scores)
    places_S = places_of(graded, rollouts)
    there_N = np.full(len(rollouts), -1)
    there_N[places_S[places_S >= 0]] = np.flatnonzero(places_S >= 0)
    rows = rollouts.filter(pa.array(there_N >= 0))
    grades = graded.take(pa.array(there_N[there_N >= 0]))
    for name in (*NUMBERS, OUTCOME):
        rows = rows.append_column(name, grades[name])
    yield from _groups(rows, ["variant_hash", "kind", "split", CONDITION])


def mean_of_repeats(scores: pa.Table) -> pa.Table:
    """The grades of each response, by its key: the mean over repeats that gave one; for declined, what most of them say.

    Its outcome is the first that a repeat gave.
    """
    numbers = {name: scores[name].cast(pa.float64()) for name in NUMBERS}
    table = pa.table({name: scores[name] for name in KEY} | numbers | {OUTCOME: scores[OUTCOME].cast(pa.string())})
    wanted = [*((name, "mean") for name in NUMBERS), (OUTCOME, "first")]
    means = table.group_by(KEY, use_threads=False).aggregate(wanted)
    found = {name: means[f"{name}_mean"] for name in NUMBERS} | {OUTCOME: means[f"{OUTCOME}_first"]}
    return pa.table({**{name: means[name] for name in KEY}, **found, "declined": pc.greater(found["declined"], 0.5)})


def places_of(rows: pa.Table, among: pa.Table) -> np.ndarray:
    """For each of `rows` the place of its key in `among`, -1 where it is not there."""
    if not len(rows) or not len(among):
        return np.full(len(rows), -1)
    mine, theirs = np.zeros(len(rows), np.int64), np.zeros(len(among), np.int64)
    known = np.ones(len(rows), bool)
    for name in KEY:
        names = pc.unique(among[name]).cast(pa.string())
        codes, code = _codes(rows[name], names), _codes(among[name], names)
        mine, theirs = mine * len(names) + codes, theirs * len(names) + code
        known &= codes >= 0
    order = np.argsort(theirs, kind="stable")
    spots = np.minimum(np.searchsorted(theirs[order], mine), len(among) - 1)
    places = order[spots]
    return np.where(known & (theirs[places] == mine), places, -1)


def _codes(column: pa.ChunkedArray, names: pa.Array) -> np.ndarray:
    """The column's values as their numbers in `names`, -1 for others."""
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    number_of = pc.fill_null(pc.index_in(encoded.dictionary.cast(pa.string()), names), -1)
    return number_of.take(encoded.indices).to_numpy().astype(np.int64)


def _groups(rows: pa.Table, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of each combination of values, in order of appearance."""
    if not len(rows):
        return
    keys = rows.select(list(columns)).append_column("place", pa.array(np.arange(len(rows))))
    grouped = keys.group_by(list(columns), use_threads=False).aggregate([("place", "list")])["place_list"]
    for places in sorted((np.sort(group.values.to_numpy()) for group in grouped), key=lambda places: places[0]):
        yield rows.take(pa.array(places))


def figures_of(rows: pa.Table) -> Row:
    """Rates and means of one variant on one kind of request. Missing scores are counted, not graded 0."""
    scored = rows.filter(pc.and_(pc.is_valid(rows["compliance"]), pc.is_valid(rows["coherence"])))
    said = rows.filter(pc.is_valid(rows["declined"]))
    compliance, coherence, kinds = (scored[name].to_pylist() for name in ("compliance", "coherence", "category"))
    declined = said["declined"].to_pylist()
    harmed = rows.filter(pc.is_valid(rows[HARM]))
    given = next((part for part in (scored, said, harmed) if len(part)), scored)  # what such a judge gives at all
    figures = {
        "declined": statistics.rate(declined, said["category"].to_pylist()),
        "complied": statistics.rate([grade == 1 for grade in compliance], kinds),
        **statistics.of_grades(compliance, coherence, kinds),
    }
    products = [one * other for one, other in zip(compliance, coherence, strict=True)]
    return {
        **{name: rows[name][0].as_py() for name in ("variant", "variant_hash", "form", "split", "kind")},
        CONDITION: (rows[CONDITION][0].as_py() if CONDITION in rows.column_names else None) or "",
        "n": len(rows),
        "missing": len(rows) - len(given),
        "n_declined": len(declined),
        "outcomes": mix_of(rows[OUTCOME].to_pylist()),
        "empty": sum(rows["empty"].to_pylist()),
        "truncated": rows["finish_reason"].to_pylist().count("length"),
        "kinds": kinds_of(rows["category"].to_pylist()),
        "icc": {name: icc(values, kinds) for name, values in (("compliance", compliance), ("product", products))},
        "effective_n": {name: effective_n(values, kinds) for name, values in (("compliance", compliance), ("product", products))},
        "samples": samples_of(scored),
        "languages": languages_of(rows, scored),
        "bounds": bounds_of(figures, len(rows)) if given is scored else None,
        HARM: asdict(statistics.mean(harmed[HARM].to_pylist(), harmed["category"].to_pylist())) if len(harmed) else None,
        **{name: asdict(estimate) for name, estimate in figures.items()},
    }


def judge_entry(name: str, scores: pa.Table, manifest: Mapping[str, Any]) -> Row:
    """A summary's entry on a judge: how far it can be trusted, what is missing and what it cost."""
    first = scores.slice(0, 1).to_pylist()[0]
    costs = scores["cost"].drop_null().to_pylist()
    scored = scores.filter(pc.is_null(scores["error"]))
    return {
        **calibrations.identity_of(first),
        "notice": calibrations.notice_of(first),
        "calibration": calibrations.lookup(**calibrations.identity_of(first)),
        "repeats": _repeats(scores),
        "missing": len(scores) - scores["error"].null_count,
        "cost": sum(costs) if costs else None,
        "cost_unknown": scored["cost"].null_count if costs else 0,
        "last_run": manifest.get("judging", {}).get(name),
    }


def agreements(scores: Mapping[str, pa.Table]) -> list[Row]:
    """Of every two judges, and of each judge with itself where it was asked more than once."""
    names = list(scores)
    found = []
    for place, name in enumerate(names):
        if (count := _repeats(scores[name])) > 1:
            repeats = [_ratings(_repeat(scores[name], number)) for number in range(count)]
            found.append({"judges": [name], **agreement.of_repeats(repeats)})
        for other in names[place + 1 :]:
            pair = _of_both(_repeat(scores[name], 0), _repeat(scores[other], 0))
            found.append({"judges": [name, other], **agreement.of_two(*map(_ratings, pair))})
    return found


def calibrations_of(scores: Path) -> list[Any]:
    """The calibrations of every judge in a table of scores: a summary is made again when one is added."""
    names = ["judge", "judge_model", "rubric_hash"]
    judges = parquet_reader.read_table(scores, names).group_by(names)
    return [calibrations.lookup(**calibrations.identity_of(row)) for row in judges.aggregate([]).to_pylist()]


def _repeats(scores: pa.Table) -> int:
    return 1 + int(pc.max(scores["repeat"]).as_py())


def _repeat(scores: pa.Table, number: int) -> pa.Table:
    return scores.filter(pc.equal(scores["repeat"], number))


def _of_both(first: pa.Table, second: pa.Table) -> list[pa.Table]:
    """The rows of responses that are in both tables: what two judges have not both seen says nothing of their agreement."""
    return [one.filter(pa.array(places_of(one, other) >= 0)) for one, other in ((first, second), (second, first))]


def _ratings(scores: pa.Table) -> dict[Key, Row]:
    return {(row["variant_hash"], row["prompt_id"]): row for row in scores.select([*KEY, *GRADES]).to_pylist()}
