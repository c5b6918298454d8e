"""A run's variant as an inspect `.eval` log, which `inspect view` and inspect's dataframes open. inspect is not needed.

The format, version 2: a zip with header.json, summaries.json, and samples/ID_epoch_1.json, by inspect_ai/log/_recorders/eval.py.
A sample is a response; its scores are the judges', each a table of grades. Members have no time of their own, so equal runs give
equal bytes.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from engine.environment import PACKAGES
from engine.exports.rows import GRADES, RunRows
from engine.runs.schemas import Row

VERSION = 2
EPOCH = 1
STOPS = {"stop": "stop", "length": "max_tokens"}
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
SCORER = "mean"


def eval_log(run: RunRows, variant: str) -> bytes:
    """The bytes of one variant's log."""
    rows = [row for row in run.rollouts if row["variant"] == variant]
    samples = [_sample(run, row) for row in rows]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        header = _header(run, variant, rows, samples)
        start = {key: header[key] for key in ("version", "eval", "plan")}
        _put(file, "_journal/start.json", start)
        for sample in samples:
            _put(file, f"samples/{sample['id']}_epoch_{EPOCH}.json", sample)
        _put(file, "summaries.json", [_summary(sample) for sample in samples])
        _put(file, "header.json", header)
    return stream.getvalue()


def _put(file: zipfile.ZipFile, name: str, value: Any) -> None:
    entry = zipfile.ZipInfo(name, ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    file.writestr(entry, json.dumps(value, ensure_ascii=False))


def _header(run: RunRows, variant: str, rows: Sequence[Row], samples: Sequence[Row]) -> Row:
    stages = run.manifest["stages"]
    times = sorted(stage["finished"] for stage in stages.values() if "finished" in stage) or ["1980-01-01T00:00:00+00:00"]
    digest = hashlib.sha256(f"{run.name} {rows[0]['variant_hash']}".encode()).hexdigest()[:22]
    return {
        "version": VERSION,
        "status": "success",
        "eval": _spec(run, variant, rows, digest, times[0]),
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": {}},
        "results": {"total_samples": len(samples), "completed_samples": len(samples), "scores": list(_results(samples))},
        "stats": {"started_at": times[0], "completed_at": times[-1], "model_usage": {rows[0]["model"]: _usage(rows)}},
    }


def _spec(run: RunRows, variant: str, rows: Sequence[Row], digest: str, created: str) -> Row:
    first = rows[0]
    sampling = json.loads(first["sampling"])
    kept = {name: sampling[name] for name in ("temperature", "top_p", "max_tokens") if name in sampling}
    packages: Row = next((stage.get("versions", {}) for stage in run.manifest["stages"].values()), {})
    return {
        "eval_id": digest,
        "run_id": digest,
        "created": created,
        "task": f"refusal-rollout/{run.name}",
        "task_id": digest,
        "task_version": 0,
        "dataset": {"name": run.name, "samples": len(rows), "sample_ids": [_id(row) for row in rows]},
        "model": f"{first['model']}/{variant}",
        "model_generate_config": {**kept, "seed": first["seed"]},
        "config": {"epochs": EPOCH},
        "packages": {name: packages[name] for name in PACKAGES if name in packages},
        "metadata": {name: first[name] for name in ("variant", "variant_hash", "form", "dtype", "engine", "template")},
        "scorers": [{"name": name} for name in dict.fromkeys(score for row in rows for score in _scores(run, row))],
    }


def _sample(run: RunRows, row: Row) -> Row:
    message = {"role": "assistant", "content": row["response"], "source": "generate", "model": row["model"]}
    return {
        "id": _id(row),
        "epoch": EPOCH,
        "input": row["prompt"],
        "target": "",
        "messages": [{"role": "user", "content": row["prompt"], "source": "input"}, message],
        "output": {
            "model": row["model"],
            "choices": [{"message": message, "stop_reason": STOPS.get(row["finish_reason"], "unknown")}],
            "completion": row["response"],
            "usage": _usage([row]),
        },
        "scores": _scores(run, row),
        "metadata": {name: row[name] for name in ("prompt_id", "kind", "category", "split", "mean_logprob", "variant")},
        "store": {},
        "events": [],
        "model_usage": {row["model"]: _usage([row])},
        "attachments": {},
    }


def _scores(run: RunRows, row: Row) -> dict[str, Row]:
    """Each judge's grades that are there, by its name; of repeats after the first the number stands behind it."""
    found = {}
    for score in run.of(row):
        name = score["judge"] + (f" #{score['repeat']}" if score["repeat"] else "")
        grades = {grade: float(score[grade]) for grade in GRADES if score.get(grade) is not None}
        if grades:
            found[name] = {"value": grades, "explanation": score["reason"], "metadata": {"outcome": score.get("outcome")}}
    return found


def _results(samples: Sequence[Row]) -> Iterator[Row]:
    """The mean of every grade of every judge, over the samples that have it."""
    values: dict[tuple[str, str], list[float]] = {}
    for sample in samples:
        for judge, score in sample["scores"].items():
            for grade, value in score["value"].items():
                values.setdefault((judge, grade), []).append(value)
    for (judge, grade), found in values.items():
        metric = {"name": SCORER, "value": sum(found) / len(found), "params": {}}
        counts = {"scored_samples": len(found), "unscored_samples": len(samples) - len(found)}
        yield {"name": grade, "scorer": judge, **counts, "params": {}, "metrics": {SCORER: metric}}


def _summary(sample: Row) -> Row:
    kept = {name: sample[name] for name in ("id", "epoch", "input", "target", "metadata", "scores", "model_usage")}
    return {**kept, "completed": True, "message_count": len(sample["messages"])}


def _id(row: Row) -> str:
    """A sample's id, which names a member of the zip."""
    return str(row["prompt_id"]).replace("/", "-")


def _usage(rows: Sequence[Row]) -> Row:
    given, made = (sum(row[name] for row in rows) for name in ("num_prompt_tokens", "num_output_tokens"))
    return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
