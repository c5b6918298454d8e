"""The studies as commands run them: a configuration and a run directory in, a JSON object out. What can be checked is checked
before a model loads."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.errors import EngineError
from engine.pipeline import run
from engine.progress import say
from engine.report.page import refresh
from engine.rundir import file_hash, open_run_dir
from engine.runjudge import RunJudge
from engine.session import Session, given_layers
from engine.stages import ROLLOUTS, SCORES
from engine.study.opening import Study, open_study
from extraction.errors import ExtractionError
from extraction.prompts import load_prompts, resolve

EFFECT_RESPONSES = 1000  # a comparison has hundreds: what judges them is worth its start
Row = dict[str, Any]


@contextlib.contextmanager
def opened(config: RunConfig, path: Path) -> Iterator[Study]:
    """The study's run directory, locked; its engine is stopped in the end."""
    study = open_study(config, path)
    say(f"run directory: {path}")
    with study.run_dir.locked():
        try:
            yield study
        finally:
            study.session.close()
            study.whole.close()
        refresh(study.run_dir)


def extract(
    config: RunConfig,
    path: Path,
    *,
    positions: Sequence[str],
    estimators: Sequence[str],
    unrelated: bool,
    padded: bool,
    harmfulness: bool,
    effect: bool,
) -> Row:
    """geometry.json, and reading.json and effect.json where they are asked for."""
    from engine.directions import ensure_directions
    from extraction.estimators import ESTIMATORS

    if unknown := [name for name in estimators if name not in ESTIMATORS]:
        raise ExtractionError(f"Unknown estimator '{unknown[0]}'; expected some of {', '.join(ESTIMATORS)}.")
    source = config.data.unrelated if unrelated else None
    if source is not None:
        load_prompts(source)
    judge = _judge(config) if effect else None
    if effect or harmfulness:
        given_layers(config)
    if harmfulness:
        run(config, path)  # which requests the base declines
    with opened(config, path) as study:
        study.session.offsets([config.directions.position, *positions])
        ensure_directions(study.whole, study.run_dir)
        inputs = {"positions": list(positions), "estimators": list(estimators), "padded": padded}
        inputs |= {"unrelated": source, "unrelated_hash": file_hash(resolve(source)) if source else None}
        found = {"geometry": _geometry(study, inputs, positions, estimators, source, padded)}
        if harmfulness:
            found["reading"] = _reading(study)
        if judge is not None:
            found["effect"] = _effect(study, judge, inputs, estimators, source)
        return found


def _geometry(
    study: Study, inputs: Row, positions: Sequence[str], estimators: Sequence[str], source: str | None, padded: bool
) -> Row:
    def work() -> Row:
        from engine.study.geometry import Options, make_geometry

        return make_geometry(study, Options(tuple(positions), tuple(estimators), source, padded))

    return study.run("geometry", inputs | {"layers": study.session.config.directions.layers}, work)


def _reading(study: Study) -> Row:
    from engine.study.reading import base_behaviour, make_reading

    behaviour = base_behaviour(study)
    inputs = {name: file_hash(study.run_dir.file(name)) for name in (ROLLOUTS, SCORES)}
    return study.run("reading", inputs, lambda: make_reading(study, behaviour))


def _effect(study: Study, judge: RunJudge, inputs: Row, estimators: Sequence[str], source: str | None) -> Row:
    def work() -> Row:
        from engine.study.effect import make_effect

        return make_effect(study, judge.grader, estimators, source)

    return study.run("effect", inputs | _edit_inputs(study.session) | {"judge": judge.identity}, work)


def ablate(config: RunConfig, path: Path, **options: Any) -> Row:
    """ablation.json; options as `engine.study.ablation.Options`."""
    given_layers(config)
    with opened(config, path) as study:
        study.session.layers()
        options["num_prompts"] = min(options["num_prompts"], len(study.held_out))

        def work() -> Row:
            from engine.study.ablation import Options, make_ablation

            return make_ablation(study, Options(**options))

        return study.run("ablation", options | _edit_inputs(study.session), work)


def regrow(config: RunConfig, path: Path, *, rounds: int, num_prompts: int, max_tokens: int) -> Row:
    """regrowth.json."""
    given_layers(config)
    with opened(config, path) as study:
        study.session.layers()
        options = {"rounds": rounds, "num_prompts": min(num_prompts, len(study.held_out)), "max_tokens": max_tokens}

        def work() -> Row:
            from engine.study.regrowth import make_regrowth

            return make_regrowth(study, **options)

        return study.run("regrowth", options | _edit_inputs(study.session), work)


def transfer(config: RunConfig, path: Path, *, to: str | None, adapter: Path | None) -> Row:
    """transfer.json (another model), or adapter.json (a LoRA's writes)."""
    if (to is None) == (adapter is None):
        raise EngineError("Name another model with --to DIR, or a LoRA with --adapter DIR: one of the two.")
    given_layers(config)
    judge = _judge(config) if to is not None else None
    with opened(config, path) as study:
        study.session.layers()
        if adapter is not None:
            return study.run("adapter", {"adapter": _adapter_hash(adapter)}, lambda: _compare_adapter(study, adapter))
        from engine.study.transfer import make_transfer, open_other

        assert to is not None and judge is not None
        other = open_other(study, to)
        inputs = {"other": other.base_hash, "judge": judge.identity} | _edit_inputs(study.session)
        try:
            return study.run("transfer", inputs, lambda: make_transfer(study, other, judge.grader))
        finally:
            other.close()


def behave(config: RunConfig, path: Path, *, num_prompts: int) -> Row:
    """behaviour.json of a finished run, which is finished first where it is not."""
    import json

    from engine.rundir import write_json
    from engine.study.behaviour import make_behaviour, read_run
    from engine.study.opening import FORMAT, headed

    run(config, path)
    session = Session(config)
    run_dir = open_run_dir(path, session.identity)
    with run_dir.locked():
        rows = read_run(session, run_dir)
        inputs = {"rollouts": file_hash(run_dir.file(ROLLOUTS)), "num_prompts": num_prompts, "format": FORMAT}

        def work() -> None:
            found = make_behaviour(session, run_dir, rows, num_prompts)
            write_json(run_dir.file("behaviour.json"), headed(config.variant, {"num_prompts": num_prompts}, found))

        run_dir.run_stage("behaviour", inputs, ["behaviour.json"], work)
        refresh(run_dir)
    return dict(json.loads(run_dir.file("behaviour.json").read_text()))


def _judge(config: RunConfig) -> RunJudge:
    judge = RunJudge(config.judge, EFFECT_RESPONSES)
    judge.check(in_sweep=True)
    return judge


def _edit_inputs(session: Session) -> Row:
    config = session.config
    return {"layers": config.directions.layers, "edit": config.edit.model_dump(mode="json"), "k": config.directions.k}


def _compare_adapter(study: Study, adapter: Path) -> Row:
    from engine.study.transfer import make_adapter_comparison

    return make_adapter_comparison(study, adapter)


def _adapter_hash(adapter: Path) -> str:
    from editing.adapter import WEIGHTS_FILE, read_adapter

    read_adapter(adapter)
    return file_hash(adapter / WEIGHTS_FILE)
