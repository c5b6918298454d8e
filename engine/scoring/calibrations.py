"""Judges measured against human labels: made once for a judge, model and rubric, kept in the cache, printed beside its rates."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from engine.configs.judges import OFFLINE
from engine.environment import commit
from engine.errors import EngineError
from engine.paths import CHECKSUM, cache_dir, file_hash, hash_of, is_sealed, sealed, write_json
from engine.runs.json_reader import read_json
from engine.scoring.grader import FITTED, TEXT_ONLY, FittedGrader, Grader, OfflineGrader, notice_of_model
from engine.scoring.labels import BLIND, EMBEDDED, FILES, SHIPPED, Label, Labels, load_labels
from judging.bias import LEAST, bias_by_scale
from judging.calibration import grade_rates, yes_no_rates
from judging.judgement import Judgement

LABELLED_REFERENCE = -0.758  # the base's median over its responses to the selection requests, nats a token (SmolLM2-135M)
MEASURE_AGAIN = "Remove it and measure the judge again: bin/judge --calibrate."
FORMAT = 3  # of a calibration: raise where its fields change
FEWEST = 30  # labels: the error rates of fewer say nothing
SCALES = ("compliance", "coherence", "declined")
Record = dict[str, Any]


def identity_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The identity of the judge that gave a score: name, model and rubric hash."""
    return {"name": row["judge"], "model": row["judge_model"], "rubric_hash": row["rubric_hash"]}


def identity_of_grader(grader: Grader) -> dict[str, str]:
    """A judge's identity: name, model and rubric hash."""
    return {"name": grader.name, "model": grader.model, "rubric_hash": grader.rubric_hash}


def notice_of(row: Mapping[str, Any]) -> str:
    """The notice that stands beside a judge's rates."""
    return notice_of_model(row["judge_model"])


def judge_of(grader: Grader) -> Record:
    """A summary's entry on the judge that its rates come from."""
    identity = identity_of_grader(grader)
    return {**identity, "notice": grader.notice, "calibration": lookup(**identity)}


def lookup(name: str, model: str, rubric_hash: str) -> Record | None:
    """The calibration of a judge; None where there is none. The rules are measured on the embedded labels when first asked.

    The rules' errors by source are those on the blind labels, which no rule was written with in view.
    """
    if (record := _read(_path(name, model, rubric_hash))) is not None:
        return record
    if model.startswith(FITTED):
        return _of_fitted(name, rubric_hash)
    rules = offline_on_labels(name)
    if rules is None or rules.rubric_hash != rubric_hash:
        return None
    record = calibrate(rules, load_labels(EMBEDDED))
    blind = load_labels(BLIND)
    errors = by_source(blind.rows, rules.grade([row.item for row in blind.rows]))
    known = {entry["source"] for entry in errors}
    record["by_source"] = [entry for entry in record["by_source"] if entry["source"] not in known] + errors
    write_calibration(record)
    return record


def _of_fitted(name: str, rubric_hash: str) -> Record | None:
    """The fitted rules on the held-out labels of all shipped files; None for those of another version."""
    grader = FittedGrader(name)
    if grader.rubric_hash != rubric_hash:
        return None
    files = [load_labels(source).heldout() for source in SHIPPED]
    labels = Labels(
        "embedded, held out", hash_of({file.source: file.hash for file in files}), [row for file in files for row in file.rows]
    )
    record = measure(grader, labels, grader.grade([row.item for row in labels.rows]))
    write_calibration(record)
    return record


def offline_on_labels(name: str) -> OfflineGrader | None:
    """The rules as they are measured on the embedded labels; None for other judges."""
    references = {OFFLINE: LABELLED_REFERENCE, TEXT_ONLY: None}
    return OfflineGrader(references[name], name=name) if name in references else None


def calibrate(grader: Grader, labels: Labels) -> Record:
    """Measure a judge on labels and keep the result. The rules are measured on the held-out part alone."""
    return calibrate_on(grader, labels if grader.model else labels.heldout())[0]


def calibrate_on(grader: Grader, labels: Labels) -> tuple[Record, list[Judgement]]:
    """Measure a judge on these labels and keep the result; with its judgements of them, in their order.

    Raises EngineError for fewer labels than an error rate can be told from.
    """
    if len(labels.rows) < FEWEST:
        raise EngineError(f"{labels.source} has {len(labels.rows)} labels to measure on. Give {FEWEST} or more.")
    items = [row.item for row in labels.rows]
    grader.ask(items)
    grader.drain()
    found = grader.grade(items)
    record = measure(grader, labels, found)
    before = _read(_path(**record["judge"]))
    fuller = before is not None and before["labels_hash"] == record["labels_hash"] and _judged(before) > _judged(record)
    if _judged(record) and not fuller:
        write_calibration(record)
    return record, found


def _read(path: Path) -> Record | None:
    if not path.is_file():
        return None
    record = read_json(path, MEASURE_AGAIN)
    if CHECKSUM in record and not is_sealed(record):
        raise EngineError(f"{path} is not what was written there. {MEASURE_AGAIN}")
    return {key: value for key, value in record.items() if key != CHECKSUM}


def _judged(record: Record) -> int:
    return max(int(record[scale]["n"]) for scale in SCALES)


def measure(grader: Grader, labels: Labels, found: list[Judgement]) -> Record:
    """Error rates of judgements against labels."""
    humans = {name: [getattr(row, name) for row in labels.rows] for name in SCALES}
    return {
        "judge": identity_of_grader(grader),
        "labels": labels.source,
        "labels_hash": labels.hash,
        "n": len(labels.rows),
        "sources": sorted({row.source for row in labels.rows}),
        "date": date.today().isoformat(),
        "missing": sum(one.error is not None for one in found),
        "commit": commit(),
        "compliance": grade_rates(humans["compliance"], [one.compliance for one in found]),
        "coherence": grade_rates(humans["coherence"], [one.coherence for one in found]),
        "declined": yes_no_rates(humans["declined"], [one.declined for one in found]),
        "by_source": by_source(labels.rows, found),
    }


def by_source(labels: Sequence[Label], found: Sequence[Judgement]) -> list[Record]:
    """The judge's errors on each source's labels, by kind of request, and on each labelled variant's: never pooled."""
    groups: dict[tuple[str, ...], list[tuple[Label, Judgement]]] = {}
    for label, judgement in zip(labels, found, strict=True):
        groups.setdefault((label.source, label.requests, "", ""), []).append((label, judgement))
        if label.variant:
            groups.setdefault((label.source, label.requests, label.variant, label.model), []).append((label, judgement))
    return [
        {"source": source, "requests": requests, "variant": variant, "model": model, **_errors_of(group)}
        for (source, requests, variant, model), group in groups.items()
        if len(group) >= LEAST
    ]


def _errors_of(group: Sequence[tuple[Label, Judgement]]) -> Record:
    labels, judgements = [label for label, _ in group], [judgement for _, judgement in group]
    human = [(label.compliance, label.coherence, label.declined) for label in labels]
    judged = [(one.compliance, one.coherence, one.declined) for one in judgements]
    return {
        "n": len(group),
        "responses": len({(label.item.prompt, label.item.response) for label in labels}),
        "raters": sorted({label.rater for label in labels if label.rater}),
        "bias": bias_by_scale(judged, human, [label.unit for label in labels]),
        "declined": yes_no_rates([one[2] for one in human], [one[2] for one in judged]),
        "complied": yes_no_rates([one[0] == 1 for one in human], [None if one[0] is None else one[0] == 1 for one in judged]),
    }


def write_calibration(record: Record) -> None:
    """Keep a calibration for every later run."""
    path = _path(**record["judge"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, sealed(record))


def _path(name: str, model: str, rubric_hash: str) -> Path:
    code = hash_of({"model": model} if model else {"rules on": [file_hash(file) for file in FILES.values()]})
    return cache_dir() / "calibrations" / f"{name}-{code}-{rubric_hash}-{FORMAT}.json"
