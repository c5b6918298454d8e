"""What a sweep would do, looked at and not done: candidates, prompts, tokens at most, judge calls, money, disk and time."""

import math
from pathlib import Path

from engine.configs.conditions import check_one_condition
from engine.configs.schema import RunConfig, SweepConfig
from engine.display.progress import Job
from engine.rollout.plan import Plan, add, begin, check_only, judging
from engine.runs import timings
from engine.runs.requests import DECLINED
from engine.runs.run_dir import check_run_dir, is_finished
from engine.runs.selection import of_training_kinds, with_selection
from engine.runs.session import Session
from engine.scoring.run_judge import RunJudge
from engine.sweep.halving import rounds
from engine.sweep.inputs import SweepInputs, check_grid, check_inputs, grid_layers, listed_subspaces, top_sizes
from engine.sweep.settings import (
    BYTES_PER_ROW,
    EXPECTED_RESPONSES,
    check_settings,
    sweep_identity,
    tested_requests,
    with_controls,
)


def plan_sweep(config: RunConfig, path: Path) -> Plan:
    """What bin/sweep would do in `path`. Raises, as the sweep itself would, for what cannot run; nothing is written or sent."""
    check_one_condition(config, "A sweep")
    check_run_dir(path)
    config, pairs = with_selection(with_controls(config))
    session = check_only(config, layers=False)
    inputs = SweepInputs(of_training_kinds(session, pairs), tested_requests(session))
    check_settings(session)
    check_grid(session)
    check_inputs(config, session.pairs, inputs)
    judge = RunJudge(config.judge, EXPECTED_RESPONSES)
    judge.check_at_hand()
    size = BYTES_PER_ROW * 40 * (len(inputs.pairs) + len(inputs.test)) + session.directions_bytes
    plan = begin(session, "bin/sweep", path, size)
    done = is_finished(path, sweep_identity(session, judge))
    _add_stages(plan, session, inputs, done=done)
    most = session.config.sampling.max_tokens
    asked = [request for request in session.requests if request.kind == DECLINED][: len(inputs.test)]
    plan.judge = judging(judge, asked, _finalists(config.sweep) + 1, most)
    return plan


def _add_stages(plan: Plan, session: Session, inputs: SweepInputs, *, done: bool) -> None:
    """The four stages, the controls' searches included."""
    config, most = session.config.sweep, session.config.sampling.max_tokens
    pairs = session.rendered_pairs()
    train = sum(len(side) for pair in pairs for side in (pair.declined, pair.answered))
    length = train / max(2 * len(pairs), 1)
    searches = 1 + 2 * (config.controls or 0)
    singles = len(grid_layers(session)) * len(config.positions) * len(config.alphas)
    finalists, chosen = _finalists(config), len(inputs.pairs)
    add(plan, session, timings.DIRECTIONS, done, f"{2 * len(pairs)} prompts", train)
    if not config.exhaustive:
        screened = round(searches * singles * 2 * config.screen_prompts * length)
        add(plan, session, timings.SCREEN, done, f"{searches * singles} candidates", screened)
        raced = _raced(config, chosen) * searches
        _generate(plan, session, "race", raced, config.short_tokens, done=done)
    selected = searches * ((singles if config.exhaustive else config.finalists) + _subspaces(config) + 1)
    _generate(plan, session, "selection", selected * chosen, most, done=done)
    _generate(plan, session, "test", (finalists + searches) * len(inputs.test), most, done=done)
    for name, rows in (("selection", selected * chosen), ("test", (finalists + searches) * len(inputs.test))):
        tokens, label = rows * round(most + length), f"likelihoods ({name})"
        add(plan, session, timings.LIKELIHOODS, done, f"{rows} responses", tokens, name=label, rows=rows)


def _generate(plan: Plan, session: Session, name: str, rows: int, most: int, *, done: bool) -> None:
    add(plan, session, timings.ROLLOUTS, done, f"{rows} responses", rows * most, name=f"rollouts ({name})", rows=rows)


def job_of(session: Session, inputs: SweepInputs, path: Path) -> Job:
    """The stages of a sweep whose inputs were looked at, as its progress names them."""
    plan = begin(session, "bin/sweep", path, 0)
    _add_stages(plan, session, inputs, done=False)
    seconds = {stage.name: stage.seconds for stage in plan.stages}
    return Job(seconds, {stage.name: stage.rows for stage in plan.stages if stage.rows})


def _raced(config: SweepConfig, prompts: int) -> int:
    """Responses of one search's race at most: the better half goes on, and no fewer than the finalists."""
    left, before, rows = max([config.keep, *top_sizes(config)]) * len(config.alphas), 0, 0
    for size in rounds(min(config.first_round, prompts), prompts):
        rows += left * (size - before)
        left, before = max(config.finalists, math.ceil(left / 2)), size
        if left <= config.finalists:
            break
    return rows


def _finalists(config: SweepConfig) -> int:
    """Variants that reach the test prompts, controls left out."""
    return config.finalists + _subspaces(config)


def _subspaces(config: SweepConfig) -> int:
    return len(top_sizes(config)) + len(listed_subspaces(config))
