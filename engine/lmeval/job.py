"""`bin/bench` from configurations to files: what can be checked is checked before an engine starts."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.configs.schema import RunConfig
from engine.errors import EngineError
from engine.lmeval import bench
from engine.lmeval.catalogue import check_few_shot, load_tasks
from engine.lmeval.endpoint import EndpointModel, served_models
from engine.paths import default_run_dir
from engine.report.refresh import refresh
from engine.rollout.variants import BASE, open_sessions, variants_of
from engine.runs import parquet_reader
from engine.runs.files import BENCH, BENCH_ROWS, MANIFEST, ROLLOUTS, SUMMARY, headed
from engine.runs.machine import check_machine
from engine.runs.manifest import read_manifest
from engine.runs.of_config import given_layers
from engine.runs.run_dir import RunDir
from engine.runs.schemas import Row
from engine.runs.session import Session


def run_bench(
    configs: Sequence[RunConfig], asked: Mapping[str, Any], options: bench.BenchOptions, *, concurrent: int, out: Path | None
) -> Row:
    """The result, which is also in bench.json."""
    for config in configs:
        given_layers(config)
    if not asked["tasks"]:
        raise EngineError("--tasks names no task; everyday ships with this project.")
    sessions = open_sessions(configs, "one engine holds one base: bench them apart")
    for session in sessions if asked["server"] is None else []:
        session.check_swappable()
        check_machine(session)
    served = served_models(asked["server"], [BASE, *(config.variant for config in configs)]) if asked["server"] else []
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tasks = load_tasks(asked["tasks"], asked["include"], asked["data"])
    bench.check_limit(tasks, options.limit)
    check_few_shot(tasks, options.num_fewshot)
    folder = out or default_run_dir(configs[0].variant)
    with contextlib.ExitStack() as stack:
        stack.callback(sessions[0].close)
        if asked["server"]:
            _check_base(sessions[0], served[0])
            _check_run(folder, {one.name: one.variant_hash for one in served})
            result, rows = bench.bench_server(sessions[0], asked["server"], served, tasks, options, concurrent)
        else:
            variants = [sessions[0].base, *variants_of(sessions)]
            _check_run(folder, {variant.name: variant.hash for variant in variants})
            result, rows = bench.bench(sessions[0], variants, tasks, options)
    result = headed(configs[0].variant, vars(options), result)
    _write(folder, result, rows)
    return result


def _write(folder: Path, result: Row, rows: Sequence[Row]) -> None:
    """The result's files, and the page of the run that they belong to, where they do."""
    if not (folder / SUMMARY).is_file() or not (folder / MANIFEST).is_file():
        bench.write(folder, result, rows)
        return
    run_dir = RunDir(folder, read_manifest(folder))
    with run_dir.locked():
        with run_dir.writing(BENCH, BENCH_ROWS, by="bin/bench"):
            bench.write(folder, result, rows)
        refresh(run_dir)


def _check_base(session: Session, base: EndpointModel) -> None:
    """Raise EngineError where an endpoint tells that its base is another model."""
    if base.variant_hash not in (None, session.base.hash):
        raise EngineError(
            f"The server's base is {base.variant_hash}, and this variant's is {session.base.hash} ({session.config.model.path}): "
            "another model. Name a variant of the server's."
        )


def _check_run(folder: Path, hashes: Mapping[str, str | None]) -> None:
    """Raise EngineError where a run directory holds responses of other variants by these names: its report would mix them."""
    if not (folder / ROLLOUTS).is_file():
        return
    keys = ["variant", "variant_hash"]
    for row in parquet_reader.read_table(folder / ROLLOUTS, keys).group_by(keys).aggregate([]).to_pylist():
        if (ours := hashes.get(row["variant"])) and ours != row["variant_hash"]:
            raise EngineError(
                f"{folder} holds rollouts of another {row['variant']} ({row['variant_hash']}; this one is {ours}). Name another "
                "folder with --out."
            )
