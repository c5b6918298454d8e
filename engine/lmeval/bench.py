"""`bin/bench`: base and variants on lm-eval's tasks in one engine, a row a document, and the paired table."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine import store
from engine.environment import describe
from engine.errors import EngineError
from engine.lmeval.compare import over_tasks, paired
from engine.lmeval.injection import engine_model, server_model
from engine.progress import say
from engine.rundir import write_json
from engine.session import Session, model_name
from engine.stages import variants_of

BENCH_SCHEMA = pa.schema(
    [
        ("variant", pa.string()),
        ("variant_hash", pa.string()),
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("doc_hash", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("responses", pa.string()),
    ]
)
PREFERRED = ("acc_norm", "acc", "exact_match")
SEED = 1234
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How lm-eval asks: documents a task (None: all), examples before each question (None: the task's own), chat template."""

    limit: int | None
    num_fewshot: int | None
    chat_template: bool


def bench(sessions: Sequence[Session], tasks: Mapping[str, Any], options: Options) -> tuple[Row, list[Row]]:
    """The result and a row a document: the base first, then each variant by hot swap in the same engine."""
    variants = [sessions[0].base, *variants_of(sessions)]
    session = sessions[0]
    replica = session.replica()
    kwargs = {"chat_template_args": dict(session.config.model.chat_template_kwargs)}
    model = engine_model(replica.llm, session.checkpoint.directory, **kwargs)
    rows: list[Row] = []
    seconds = {}
    for variant in variants:
        replica.swap(variant)
        started = time.monotonic()
        rows += document_rows(variant.name, variant.hash, evaluate(model, tasks, options))
        seconds[variant.name] = round(time.monotonic() - started, 2)
        say(f"bench: {variant.name} in {seconds[variant.name]} s")
    return _result(session, [variant.name for variant in variants], rows, options) | {"seconds": seconds}, rows


def bench_server(
    session: Session, url: str, names: Sequence[str], tasks: Mapping[str, Any], options: Options, concurrent: int
) -> tuple[Row, list[Row]]:
    """The same through an OpenAI-compatible endpoint, whose models are `names`, the first taken for the base."""
    rows: list[Row] = []
    for name in names:
        model = server_model(url, name, session.checkpoint.directory, concurrent)
        rows += document_rows(name, name, evaluate(model, tasks, options))
    return _result(session, names, rows, options) | {"server": url}, rows


def evaluate(model: Any, tasks: Mapping[str, Any], options: Options) -> Mapping[str, list[Row]]:
    """lm-eval's samples by task."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = simple_evaluate(
        model=model,
        tasks=list(tasks.values()),
        task_manager=TaskManager(include_defaults=False),  # the tasks are loaded; indexing the stock ones again takes seconds
        limit=options.limit,
        num_fewshot=options.num_fewshot,
        apply_chat_template=options.chat_template,
        bootstrap_iters=0,
        log_samples=True,
        random_seed=SEED,
        numpy_random_seed=SEED,
        torch_random_seed=SEED,
        fewshot_random_seed=SEED,
    )
    return dict(found["samples"])


def document_rows(name: str, digest: str, samples: Mapping[str, list[Row]]) -> list[Row]:
    """A row for each document and metric, with lm-eval's responses (log-likelihoods or text) as JSON."""
    import json

    rows = []
    for task, documents in samples.items():
        for document in documents:
            shared = {"variant": name, "variant_hash": digest, "task": task, "doc_id": document["doc_id"]}
            shared |= {"doc_hash": document["doc_hash"], "responses": json.dumps(document["filtered_resps"], default=str)}
            metrics = [metric for metric in document["metrics"] if isinstance(document.get(metric), int | float)]
            rows += [{**shared, "metric": metric, "value": float(document[metric])} for metric in metrics]
    return rows


def compare(rows: Sequence[Row], base: str, variant: str) -> list[Row]:
    """A row a task: the base, the variant, and their paired difference on the same documents, by the task's first metric."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        metrics = list(dict.fromkeys(row["metric"] for row in rows if row["task"] == task))
        metric = next((name for name in PREFERRED if name in metrics), metrics[0])
        values: dict[str, dict[int, float]] = {base: {}, variant: {}}
        for row in rows:
            if row["task"] == task and row["metric"] == metric and row["variant"] in values:
                values[row["variant"]][row["doc_id"]] = row["value"]
        documents = sorted(values[base].keys() & values[variant].keys())
        sides = [[values[name][document] for document in documents] for name in (base, variant)]
        found.append({"variant": variant, "task": task, "metric": metric, **paired(*sides)})
    return found


def check_limit(tasks: Mapping[str, Any], limit: int | None) -> None:
    """Raise EngineError for a limit above a task's size."""
    for name, task in tasks.items():
        if limit is not None and limit > len(task.eval_docs):
            raise EngineError(
                f"Task {name} has {len(task.eval_docs)} documents; --limit asks for {limit}. Lower it or leave it out."
            )


def write(out: Path, result: Row, rows: Sequence[Row]) -> None:
    """bench.parquet and bench.json."""
    out.mkdir(parents=True, exist_ok=True)
    store.write_table(out / "bench.parquet", rows, BENCH_SCHEMA)
    write_json(out / "bench.json", result)


def _result(session: Session, names: Sequence[str], rows: Sequence[Row], options: Options) -> Row:
    by_variant = {name: compare(rows, names[0], name) for name in names[1:]}
    return {
        "model": model_name(session.config, session.base_hash),
        "variants": list(names),
        "options": vars(options),
        "tasks": [row for found in by_variant.values() for row in found],
        "mean": [
            {"variant": name, "task": "mean over tasks", "metric": "", **over_tasks(found)} for name, found in by_variant.items()
        ],
        **describe(),
    }
