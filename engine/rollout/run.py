"""One run from a configuration to a summary in a run directory."""

import contextlib
from pathlib import Path
from typing import Any

from engine.configs.schema import RunConfig
from engine.display.progress import Job, say
from engine.report.refresh import refresh
from engine.rollout.plan import BYTES_PER_ROW, check_inputs, expected_seconds
from engine.rollout.stages import run_all
from engine.runs.kinds import name_near_duplicates
from engine.runs.machine import check_machine
from engine.runs.of_config import given_layers
from engine.runs.run_dir import check_run_dir, check_space, is_finished, open_run_dir
from engine.runs.selection import texts_of
from engine.runs.session import Session
from engine.scoring.run_judge import RunJudge


def run(config: RunConfig, path: Path, *, clean: bool = False, session: Session | None = None) -> dict[str, Any]:
    """Run what is not done yet; returns the summary, with why a judge gave up in `stopped`.

    `session` is the configuration's with an engine that runs already; it is closed. Errors are raised before the run directory
    is touched where they can be.
    """
    given_layers(config)
    check_run_dir(path)
    say(f"{config.variant}: looking at {config.model.path} and the prompts")
    session = session or Session(config)
    check_inputs(session)
    judge = RunJudge(config.judge, 2 * len(session.requests))
    if not (finished := is_finished(path, session.identity)):
        check_machine(session)
        judge.check()
        check_space(path, BYTES_PER_ROW * 2 * len(session.requests) + session.directions_bytes)
        session.check_prompts()
        name_near_duplicates("test", [request.text for request in session.requests], "training", texts_of(session.pairs))
    run_dir = open_run_dir(path, session.identity, clean=clean)
    say(f"run directory: {path}")
    with run_dir.locked(), contextlib.closing(judge), Job({} if finished else expected_seconds(session, judge, path)):
        summary = run_all(session, run_dir, judge)
        refresh(run_dir)
        return summary | {"stopped": {judge.name: judge.stopped} if judge.stopped is not None else {}}
