"""`bin/bench`: base and variants on lm-eval's tasks in one engine, a row a document, and the paired table."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.display.progress import say
from engine.environment import describe
from engine.errors import EngineError
from engine.lmeval.compare import over_tasks
from engine.lmeval.documents import BENCH_SCHEMA, compare, document_rows
from engine.lmeval.endpoint import EndpointModel
from engine.lmeval.equivalence import MARGIN
from engine.lmeval.injection import Engine, engine_model, server_model, without_bars
from engine.models.variant import Variant
from engine.paths import PROJECT_DIR, write_json
from engine.runs import parquet
from engine.runs.files import BENCH, BENCH_ROWS
from engine.runs.of_config import model_name
from engine.runs.schemas import Row
from engine.runs.session import Session

SEED = 1234


@dataclass(frozen=True)
class BenchOptions:
    """How lm-eval asks: documents a task (None: all), examples before each question (None: the task's own), chat template; and
    the margin within which a difference counts as none, a share."""

    limit: int | None
    num_fewshot: int | None
    chat_template: bool
    margin: float = MARGIN


@dataclass(frozen=True)
class Scored:
    """One model's hash, its rows, a document each, lm-eval's own results by task, and the seconds they took."""

    name: str
    variant_hash: str | None
    rows: list[Row]
    results: Mapping[str, Row]
    seconds: float


def bench(
    session: Session, variants: Sequence[Variant], tasks: Mapping[str, Any], options: BenchOptions
) -> tuple[Row, list[Row]]:
    """The result and a row a document: each of `variants`, the base first, by hot swap in the same engine."""
    session.check_in_place("bin/bench")
    replica = session.replica()
    model = engine_model(replica, session.checkpoint.directory, _template(session, options))
    scored = []
    for variant in variants:
        replica.swap(variant)
        scored.append(_score(variant.name, variant.hash, model, tasks, options))
    return _result(session, scored, options), [row for one in scored for row in one.rows]


def bench_server(
    session: Session, url: str, models: Sequence[EndpointModel], tasks: Mapping[str, Any], options: BenchOptions, concurrent: int
) -> tuple[Row, list[Row]]:
    """The same result through an OpenAI-compatible endpoint, which serves `models`, the base first."""
    scored = []
    for served in models:
        model = server_model(url, served, session.checkpoint.directory, concurrent, _template(session, options))
        try:
            scored.append(_score(served.name, served.variant_hash, model, tasks, options))
        except Exception as error:  # whatever lm-eval's client raises
            raise EngineError(
                f"{url} failed while {served.name} was scored ({type(error).__name__}: {str(error)[:300]})."
            ) from error
    return _result(session, scored, options) | {"server": url}, [row for one in scored for row in one.rows]


def _template(session: Session, options: BenchOptions) -> Mapping[str, Any] | None:
    return session.config.model.chat_template_kwargs if options.chat_template else None


def _score(name: str, digest: str | None, model: Any, tasks: Mapping[str, Any], options: BenchOptions) -> Scored:
    started = time.monotonic()
    with without_bars() if isinstance(model.model, Engine) else contextlib.nullcontext():
        found = evaluate(model, tasks, options)
    seconds = round(time.monotonic() - started, 2)
    say(f"bench: {name} in {seconds} s")
    return Scored(name, digest, document_rows(name, digest, found["samples"]), found["results"], seconds)


def evaluate(model: Any, tasks: Mapping[str, Any], options: BenchOptions) -> Row:
    """lm-eval's result: `samples` and `results` by task."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with contextlib.chdir(PROJECT_DIR):  # lm-eval asks git about the folder that it is in, and git complains where there is none
        found = simple_evaluate(
            model=model,
            tasks=list(tasks.values()),
            task_manager=TaskManager(include_defaults=False),  # they are loaded; indexing the stock ones again takes seconds
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
    return dict(found)


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
    parquet.write_table(out / BENCH_ROWS, rows, BENCH_SCHEMA)
    write_json(out / BENCH, result)


def _result(session: Session, scored: Sequence[Scored], options: BenchOptions) -> Row:
    names, rows = [one.name for one in scored], [row for one in scored for row in one.rows]
    by_variant = {name: compare(rows, names[0], name, options.margin) for name in names[1:]}
    return {
        "model": model_name(session.config, session.base_hash),
        "variants": list(names),
        "variant_hashes": {one.name: one.variant_hash for one in scored},
        "options": vars(options),
        "tasks": [row for found in by_variant.values() for row in found],
        "mean": [
            {"variant": name, "task": "mean over tasks", "metric": "", **over_tasks(found, options.margin)}
            for name, found in by_variant.items()
            if len(found) > 1
        ],
        "aggregates": {one.name: {task: _numbers(result) for task, result in one.results.items()} for one in scored},
        "seconds": {one.name: one.seconds for one in scored},
        **describe(),
    }


def _numbers(result: Row) -> Row:
    """lm-eval's figures of a task without their standard errors, which are each model's alone."""
    return {name: value for name, value in result.items() if isinstance(value, float) and "_stderr" not in name}
