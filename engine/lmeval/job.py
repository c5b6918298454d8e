"""`bin/bench` from configurations to files: what can be checked is checked before an engine starts."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.errors import EngineError
from engine.lmeval import bench
from engine.lmeval.catalogue import check_few_shot, load_tasks
from engine.lmeval.endpoint import served_models
from engine.paths import default_run_dir
from engine.report.page import refresh
from engine.rundir import RunDir, read_manifest
from engine.serving.launch import BASE, open_sessions
from engine.session import given_layers
from engine.study.opening import headed

Row = dict[str, Any]


def run_bench(
    configs: Sequence[RunConfig], asked: Mapping[str, Any], options: bench.Options, *, concurrent: int, out: Path | None
) -> Row:
    """The result, which is also in bench.json."""
    for config in configs:
        given_layers(config)
    if not asked["tasks"]:
        raise EngineError("--tasks names no task; everyday ships with this project.")
    sessions = open_sessions(configs, "one engine holds one base: bench them apart")
    for session in sessions if asked["server"] is None else []:
        session.check_swappable()
    served = served_models(asked["server"], [BASE, *(config.variant for config in configs)]) if asked["server"] else []
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tasks = load_tasks(asked["tasks"], asked["include"], asked["data"])
    bench.check_limit(tasks, options.limit)
    check_few_shot(tasks, options.num_fewshot)
    folder = out or default_run_dir(configs[0].variant)
    with contextlib.ExitStack() as stack:
        stack.callback(sessions[0].close)
        if asked["server"]:
            result, rows = bench.bench_server(sessions[0], asked["server"], served, tasks, options, concurrent)
        else:
            result, rows = bench.bench(sessions, tasks, options)
    result = headed(configs[0].variant, vars(options), result)
    bench.write(folder, result, rows)
    if (folder / "summary.json").is_file() and (folder / "manifest.json").is_file():
        refresh(RunDir(folder, read_manifest(folder)))
    return result
