"""A row for each model and document from lm-eval's samples, and the models compared on the documents that they share."""

import json
from collections.abc import Mapping, Sequence
from numbers import Real

import pyarrow as pa

from engine.lmeval.compare import paired
from engine.lmeval.equivalence import MARGIN
from engine.runs.schemas import Row

BENCH_SCHEMA = pa.schema(
    [
        ("variant", pa.string()),
        ("variant_hash", pa.string()),
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("doc_hash", pa.string()),
        ("metric", pa.string()),  # the one that the table compares; null where the task scores no single document
        ("value", pa.float64()),
        ("metrics", pa.string()),  # JSON, all of them
        ("responses", pa.string()),  # JSON: log-likelihoods and whether greedy, or text
    ]
)
PREFERRED = ("acc_norm", "acc", "exact_match")
UNFILTERED = "none"


def document_rows(name: str, digest: str | None, samples: Mapping[str, Sequence[Row]]) -> list[Row]:
    """A row a document, in lm-eval's order. Where a task filters its answers in several ways (GSM8K does), the first way's is the
    metric and the response; the others are among `metrics` as NAME,FILTER."""
    rows: list[Row] = []
    for task, sampled in samples.items():
        found: dict[int, Row] = {}
        for sample in sampled:
            row = found.setdefault(sample["doc_id"], {"metrics": {}, "sample": sample})
            row["metrics"] |= _metrics(sample)
        rows += [_row(name, digest, task, row["sample"], row["metrics"]) for row in found.values()]
    return rows


def compare(rows: Sequence[Row], base: str, variant: str, margin: float = MARGIN) -> list[Row]:
    """A row a task: the base, the variant, and their paired difference on the same documents; none for a task without a score a
    document."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows if row["metric"] is not None):
        values: dict[str, dict[int, float]] = {base: {}, variant: {}}
        of_task = [row for row in rows if row["task"] == task and row["variant"] in values]
        for row in of_task:
            values[row["variant"]][row["doc_id"]] = row["value"]
        documents = sorted(values[base].keys() & values[variant].keys())
        before, after = ([values[name][document] for document in documents] for name in (base, variant))
        found.append({"variant": variant, "task": task, "metric": of_task[0]["metric"], **paired(before, after, margin)})
    return found


def _metrics(sample: Row) -> dict[str, float]:
    """A sample's numbers. What aggregates over documents some other way (perplexity, F1) is no number here."""
    way = "" if sample["filter"] == UNFILTERED else f",{sample['filter']}"
    return {f"{name}{way}": float(sample[name]) for name in sample["metrics"] if isinstance(sample.get(name), Real)}


def _row(name: str, digest: str | None, task: str, sample: Row, metrics: Mapping[str, float]) -> Row:
    preferred = (metric for wanted in PREFERRED for metric in metrics if metric.split(",")[0] == wanted)
    metric = next(preferred, next(iter(metrics), None))
    return {
        "variant": name,
        "variant_hash": digest,
        "task": task,
        "doc_id": sample["doc_id"],
        "doc_hash": sample["doc_hash"],
        "metric": metric,
        "value": None if metric is None else metrics[metric],
        "metrics": json.dumps(metrics),
        "responses": json.dumps(sample["filtered_resps"], default=str),
    }
