"""The studies as commands run them: a configuration and a run directory in, a JSON object out. What can be checked is checked
before a model loads."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.configs.judges import OFFLINE
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.errors import EngineError
from engine.paths import file_hash, write_json
from engine.report.refresh import refresh
from engine.rollout.directions import ensure_directions
from engine.rollout.run import run
from engine.runs.files import BEHAVIOUR, ROLLOUTS, SCORES, STUDY_FORMAT, headed
from engine.runs.json_reader import read_json
from engine.runs.of_config import check_has_directions, given_layers
from engine.runs.run_dir import open_run_dir
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.grader import TEXT_ONLY, OfflineGrader
from engine.scoring.run_judge import RunJudge
from engine.study.opening import Study, open_study
from engine.study.refusal_sets import load_sets, sets_hash
from extraction.errors import ExtractionError
from extraction.positions import is_generated
from extraction.prompts import load_prompts, resolve

EFFECT_RESPONSES = 1000  # a comparison has hundreds: what judges them is worth its start


@dataclass(frozen=True)
class Extract:
    """Options of `bin/extract` beside the run's own direction."""

    positions: Sequence[str]
    estimators: Sequence[str]
    unrelated: bool
    padded: bool
    harmfulness: bool
    effect: bool


@contextlib.contextmanager
def opened(config: RunConfig, path: Path) -> Iterator[Study]:
    """The study's run directory, locked; its engine is stopped and its page renewed in the end."""
    study = open_study(config, path)
    say(f"run directory: {path}")
    with study.run_dir.locked():
        try:
            yield study
        finally:
            study.session.close()
            study.whole.close()
        refresh(study.run_dir)


def extract(config: RunConfig, path: Path, asked: Extract) -> Row:
    """geometry.json, and padded.json, reading.json and effect.json where they are asked for."""
    source = _check_extract(config, asked)
    judge = _judge(config, "bin/extract --effect") if asked.effect else None
    if asked.harmfulness:
        run(config, path)  # which requests the base declines
    with opened(config, path) as study:
        study.session.offsets([config.directions.position, *asked.positions])
        ensure_directions(study.whole, study.run_dir)
        found = {"geometry": _geometry(study, asked, source)}
        if asked.padded:
            found["padded"] = _padded(study)
        if asked.harmfulness:
            found["reading"] = _reading(study)
        if judge is not None:
            found["effect"] = _effect(study, judge, asked.estimators, source)
        return found


def _check_extract(config: RunConfig, asked: Extract) -> str | None:
    """The file of unrelated prompts, where they are asked for; raises for what cannot be done."""
    from extraction.estimators import ESTIMATORS

    if unknown := [name for name in asked.estimators if name not in ESTIMATORS]:
        raise ExtractionError(f"Unknown estimator '{unknown[0]}'; expected some of {', '.join(ESTIMATORS)}.")
    if asked.effect or asked.harmfulness:
        check_has_directions(config, "a study")
        given_layers(config)
    if not asked.unrelated:
        return None
    if is_generated(config.directions.position):
        raise EngineError(
            "Unrelated prompts are compared at a token of the prompt; set directions.position to one, such as last."
        )
    load_prompts(config.data.unrelated, config.data.request_column)
    return config.data.unrelated


def _geometry(study: Study, asked: Extract, source: str | None) -> Row:
    """With what an earlier call measured of the same directions, so that a page does not lose it."""
    earlier = study.earlier_options("geometry")
    source = source or earlier.get("unrelated")
    positions, estimators = (
        list(dict.fromkeys([*earlier.get(name, []), *getattr(asked, name)])) for name in ("positions", "estimators")
    )
    estimators = [name for name in estimators if name != "mean_difference"]  # which is always measured
    inputs = {"positions": positions, "estimators": estimators, "unrelated": source}
    inputs["unrelated_hash"] = file_hash(resolve(source)) if source else None

    def work() -> Row:
        from engine.study.geometry import GeometryOptions, make_geometry

        return make_geometry(study, GeometryOptions(tuple(positions), tuple(estimators), source))

    return study.run("geometry", inputs, work)


def _padded(study: Study) -> Row:
    def work() -> Row:
        from engine.study.geometry import make_padded

        return make_padded(study)

    return study.run("padded", {}, work)


def _reading(study: Study) -> Row:
    from engine.study.reading import base_behaviour, make_reading

    behaviour = base_behaviour(study)
    inputs = {name: file_hash(study.run_dir.file(name)) for name in (ROLLOUTS, SCORES)}
    return study.run("reading", inputs, lambda: make_reading(study, behaviour))


def _effect(study: Study, judge: RunJudge, estimators: Sequence[str], source: str | None) -> Row:
    def work() -> Row:
        from engine.study.effect import make_effect

        return make_effect(study, judge.grader, estimators, source)

    inputs = {"estimators": list(estimators), "unrelated_hash": file_hash(resolve(source)) if source else None}
    return study.run("effect", inputs | {"judge": judge.identity}, work)


def ablate(config: RunConfig, path: Path, **options: Any) -> Row:
    """ablation.json; options as `engine.study.ablation.AblationOptions`."""
    check_has_directions(config, "a study")
    given_layers(config)
    judge = _model_judge(config, "bin/ablate")
    with opened(config, path) as study:

        def work() -> Row:
            from engine.study.ablation import AblationOptions, make_ablation

            return make_ablation(study, AblationOptions(**options), None if judge is None else judge.text_grader)

        return study.run("ablation", options | _asked(judge), work)


def regrow(config: RunConfig, path: Path, *, rounds: int, num_prompts: int, max_tokens: int) -> Row:
    """regrowth.json."""
    check_has_directions(config, "a study")
    given_layers(config)
    _check_prompt_position(config)
    options = {"rounds": rounds, "num_prompts": num_prompts, "max_tokens": max_tokens}
    judge = _model_judge(config, "bin/regrow")
    with opened(config, path) as study:

        def work() -> Row:
            from engine.study.regrowth import make_regrowth

            return make_regrowth(study, **options, grader=None if judge is None else judge.text_grader)

        return study.run("regrowth", options | _asked(judge), work)


def transfer(config: RunConfig, path: Path, *, to: str | None, adapter: Path | None) -> Row:
    """transfer.json (another model), or adapter.json (a LoRA's writes)."""
    if (to is None) == (adapter is None):
        raise EngineError("Name another model with --to DIR, or a LoRA with --adapter DIR: one of the two.")
    check_has_directions(config, "a study")
    given_layers(config)
    if adapter is not None:
        digest = _adapter_hash(adapter)
        with opened(config, path) as study:
            return study.run("adapter", {"adapter": digest}, lambda: _compare_adapter(study, adapter))
    assert to is not None
    _check_prompt_position(config)
    judge = _judge(config, "bin/transfer")
    with opened(config, path) as study:
        from engine.study.transfer import make_transfer, open_other

        other = open_other(study, to)
        inputs = {"other": other.base_hash, "judge": judge.identity}
        with contextlib.closing(other):
            return study.run("transfer", inputs, lambda: make_transfer(study, other, judge.grader))


def map_refusals(config: RunConfig, path: Path, *, sets: str | None, **options: Any) -> Row:
    """map.json; options as `engine.study.map.MapOptions`. What its sets hold is read before a model loads."""
    folder = None if sets is None else Path(sets).expanduser()
    pairs = sets_hash(load_sets(folder, options["kinds"], config.data.system))
    _check_prompt_position(config)
    judge = _model_judge(config, "bin/map")
    with opened(config, path) as study:
        study.session.check_layers(options["layers"], "--layers")

        def work() -> Row:
            from engine.study.map import MapOptions, make_map

            named: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
            return make_map(
                study, MapOptions(sets=folder, **named), OfflineGrader(name=TEXT_ONLY) if judge is None else judge.text_grader
            )

        return study.run("map", {**options, "sets": sets, "pairs": pairs, **_asked(judge)}, work)


def behave(config: RunConfig, path: Path, *, num_prompts: int) -> Row:
    """behaviour.json of a run, which is finished first where it is not."""
    from engine.study.behaviour import make_behaviour, read_run

    judge = _model_judge(config, "bin/behave")
    run(config, path)
    session = Session(config)
    run_dir = open_run_dir(path, session.identity)
    options = {"num_prompts": num_prompts}
    with run_dir.locked():
        rows = read_run(session, run_dir)

        def work() -> None:
            found = make_behaviour(session, run_dir, rows, num_prompts, None if judge is None else judge.text_grader)
            write_json(run_dir.file(BEHAVIOUR), headed(config.variant, options, found))

        settings = {"format": STUDY_FORMAT, **options, **_asked(judge)}
        run_dir.run_stage("behaviour", work, reads=[ROLLOUTS], settings=settings, writes=[BEHAVIOUR])
        refresh(run_dir)
    return read_json(run_dir.file(BEHAVIOUR))


def _judge(config: RunConfig, study: str) -> RunJudge:
    judge = RunJudge(config.judge, EFFECT_RESPONSES)
    judge.check(beside=study)
    return judge


def _model_judge(config: RunConfig, study: str) -> RunJudge | None:
    """The configured judge, checked; None where it is the rules, which every panel measures with its own reference."""
    return None if config.judge.name == OFFLINE else _judge(config, study)


def _asked(judge: RunJudge | None) -> Row:
    return {} if judge is None else {"judge": judge.identity}


def _check_prompt_position(config: RunConfig) -> None:
    if is_generated(config.directions.position):
        raise EngineError(
            "This study reads directions again, under an edit or on another model, where the base's responses would be others. "
            "Set directions.position to a token, such as last."
        )


def _compare_adapter(study: Study, adapter: Path) -> Row:
    from engine.study.transfer import make_adapter_comparison

    return make_adapter_comparison(study, adapter)


def _adapter_hash(adapter: Path) -> str:
    from editing.adapter import WEIGHTS_FILE, read_adapter

    read_adapter(adapter)
    return file_hash(adapter / WEIGHTS_FILE)
