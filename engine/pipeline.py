"""One run from a configuration to a summary in a run directory."""

import contextlib
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.directions import check_given_directions
from engine.machine import check_machine
from engine.progress import say
from engine.report.page import refresh
from engine.rundir import check_space, is_finished, open_for_directions, open_run_dir
from engine.runjudge import RunJudge
from engine.session import Session, given_layers
from engine.stages import load_variant, run_all

BYTES_PER_ROW = 8192  # of rollouts, shards and scores, generously


def run(config: RunConfig, path: Path, *, clean: bool = False) -> dict[str, Any]:
    """Run what is not done yet; returns the summary, with why a judge gave up in `stopped`.

    Errors are raised before the run directory is touched where they can be.
    """
    given_layers(config)
    session = Session(config)
    session.layers()  # all of them in the model
    session.check_swappable()
    check_given_directions(session)
    judge = RunJudge(config.judge, 2 * len(session.requests))
    if not is_finished(path, session.identity):
        check_machine(session)
        judge.check()
        check_space(path, BYTES_PER_ROW * 2 * len(session.requests) + session.directions_bytes)
        session.check_prompts()
    run_dir = open_run_dir(path, session.identity, clean=clean)
    say(f"run directory: {path}")
    with run_dir.locked(), contextlib.closing(judge):
        summary = run_all(session, run_dir, judge)
        refresh(run_dir)
        return summary | {"stopped": {judge.name: judge.stopped} if judge.stopped is not None else {}}


def write_variant(
    config: RunConfig,
    run_path: Path,
    out: Path,
    *,
    directions: Path | None = None,
    allow_other_base: bool = False,
    as_adapter: bool = False,
) -> dict[str, Any]:
    """The variant as a checkpoint or an adapter in `out`; returns its edit record.

    The directions are those of the file `directions`, or the run's.
    """
    from engine.export import check_export, directions_of, export

    given_layers(config)
    session = Session(config)
    session.layers()
    check_export(session, out)
    if directions is None:
        session.rendered_pairs()  # what a tokenizer or template cannot do shows before a run directory is made
    run_dir = None if directions else open_for_directions(run_path, session.identity)
    file = directions_of(session, run_dir, directions, allow_other_base=allow_other_base)
    variant = load_variant(session, file)
    record = export(session, variant, out, as_adapter=as_adapter)
    if as_adapter:
        from engine.forms import report_divergence

        record = {**record, "divergence": report_divergence(session, variant, out)}
    return record
