"""One sweep from a configuration to its summary in a run directory."""

from pathlib import Path
from typing import Any

from engine.configs.conditions import check_one_condition
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.environment import has_gpu
from engine.evaluate.placement import choose_engines
from engine.report.refresh import refresh
from engine.rollout.stages import read_summary
from engine.runs.files import SWEEP_RUN, TIMING
from engine.runs.json_reader import read_json
from engine.runs.kinds import name_near_duplicates
from engine.runs.machine import check_machine
from engine.runs.run_dir import check_run_dir, check_space, is_finished, open_run_dir
from engine.runs.selection import of_training_kinds, texts_of, with_selection
from engine.runs.session import Session
from engine.scoring.run_judge import RunJudge
from engine.sweep.inputs import SweepInputs, check_grid, check_inputs
from engine.sweep.plan import job_of
from engine.sweep.settings import (
    BYTES_PER_ROW,
    EXPECTED_RESPONSES,
    check_settings,
    sweep_identity,
    tested_requests,
    with_controls,
)


def run_sweep(config: RunConfig, path: Path, *, engines: int | None = None, clean: bool = False) -> dict[str, Any]:
    """Run what is not done yet; returns the summary. What can be checked is checked before the run directory is touched."""
    check_one_condition(config, "A sweep")
    check_run_dir(path)
    say(f"{config.variant}: looking at {config.model.path} and the prompts")
    config, pairs = with_selection(with_controls(config))
    session = Session(config)
    tested = tested_requests(session)
    inputs = SweepInputs(of_training_kinds(session, pairs), tested)
    check_settings(session)
    check_grid(session)
    check_inputs(config, session.pairs, inputs)
    chosen = choose_engines(session, engines)
    session.width = chosen.width if has_gpu() else None
    if chosen.count > 1:
        session.check_in_place("A sweep on several engines")
    judge = RunJudge(config.judge, EXPECTED_RESPONSES)
    identity = sweep_identity(session, judge)
    if not is_finished(path, identity):
        check_machine(session)
        say(f"engines: {chosen.count} of {chosen.width} {'GPU(s)' if has_gpu() else 'CPU share'}; {chosen.reason}")
        judge.check(beside="A sweep")
        session.check_prompts()
        session.render(inputs.selection, "selection prompts")
        name_near_duplicates("test", [request.text for request in tested], "selection", texts_of(inputs.pairs))
        check_space(path, BYTES_PER_ROW * 40 * (len(inputs.pairs) + len(inputs.test)) + session.directions_bytes)
    run_dir = open_run_dir(path, identity, kind=SWEEP_RUN, clean=clean)
    say(f"run directory: {path}")
    with run_dir.locked():
        if not is_finished(path, identity) or _is_made_again(read_summary(run_dir)):
            from engine.sweep.conduct import conduct

            with job_of(session, inputs, path):
                conduct(session, run_dir, inputs, chosen.count, judge.grader)
        refresh(run_dir)
        return read_summary(run_dir) | {"timing": read_json(run_dir.file(TIMING))}


def _is_made_again(summary: dict[str, Any]) -> bool:
    """Whether running again may cure what a summary lacks: an older version's figures, a variant that failed, a judgement."""
    return bool("kind" not in summary or summary["failures"] or summary["judge"].get("missing"))
