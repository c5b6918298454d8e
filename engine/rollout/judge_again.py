"""bin/judge: judges the rollouts of any run again, by one judge or several; measures a judge against human labels."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.configs.judges import OFFLINE
from engine.configs.schema import JudgeConfig, RunConfig
from engine.display.progress import say
from engine.errors import EngineError
from engine.paths import write_json
from engine.report.refresh import refresh
from engine.rollout.stages import judge_run, read_summary, summarise_run
from engine.runs.files import JUDGED, LIKELIHOODS, MANIFEST, ROLLOUTS, RUN, SCORES, SUMMARY, SWEEP_RUN, VIEWS
from engine.runs.manifest import read_manifest
from engine.runs.parquet_reader import count_rows, read_table
from engine.runs.run_dir import RunDir
from engine.scoring import calibrations, endpoint_check
from engine.scoring.biases import add_biases, differential
from engine.scoring.comparison import compare
from engine.scoring.grader import TEXT_ONLY, FittedGrader, Grader
from engine.scoring.labels import EMBEDDED, Labels, load_labels
from engine.scoring.run_judge import RunJudge
from engine.scoring.scores import count_scored
from engine.scoring.summary import agreements, figures_by, judge_entry, read_rollouts, read_scores
from judging.budget import Budget
from judging.estimate import Estimate, estimate
from judging.judgement import Judgement


@dataclasses.dataclass(frozen=True)
class JudgingOptions:
    """Options of bin/judge beside the judges' names."""

    repeat: int = 1
    max_cost: float | None = None
    batch: bool = False
    """Have an endpoint's questions answered in a batch."""
    wait: bool = True
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def open_run(path: Path) -> RunDir:
    """A run directory with rollouts. Raises EngineError for anything else, with what is missing."""
    if not path.is_dir():
        raise EngineError(f"{path} is not a directory. Give a run directory, such as runs/smollm2_135m_k1.")
    if not (path / MANIFEST).is_file():
        raise EngineError(f"{path} is not a run directory (no manifest.json). Make one with bin/rollout or bin/sweep.")
    if not (path / ROLLOUTS).is_file():
        unfinished = " Its rollouts are not finished: run the command that made it again." if _has_shards(path) else ""
        raise EngineError(f"{path} has no {ROLLOUTS}, so there is nothing to judge.{unfinished}")
    run_dir = RunDir(path, read_manifest(path))
    run_dir.check([ROLLOUTS, LIKELIHOODS, VIEWS])
    if not count_rows(path / ROLLOUTS):
        raise EngineError(f"{path / ROLLOUTS} has no rows, so there is nothing to judge. Make the run again with bin/rollout.")
    return run_dir


def judge(path: Path, names: Sequence[str], options: JudgingOptions) -> dict[str, Any]:
    """Judge a run by each judge and summarise all scores there are; `stopped` says why a judge gave up before the end."""
    run_dir = open_run(path)
    expected = count_rows(path / ROLLOUTS)
    budget = Budget(options.max_cost)  # over all judges
    judges = [_judge(name, expected, options, budget) for name in names]
    _check_names(judges)
    for one in judges:
        one.check_at_hand()
    with run_dir.locked(), contextlib.ExitStack() as stack:
        for one in judges:
            stack.callback(one.close)
        if waiting := [status for one in judges if options.batch for status in _ask_in_batches(one, run_dir, options)]:
            raise EngineError(f"Under way: {', '.join(waiting)}. Run the same command again to fetch the answers.")
        judge_run(run_dir, judges)
        summary = _summarise(run_dir)
        if run_dir.file(SUMMARY).is_file():
            refresh(run_dir)
    stopped = {one.name: one.stopped for one in judges if one.stopped is not None}
    return summary | {"stopped": stopped, "unscored": _unscored(run_dir.file(SCORES), judges)}


def _ask_in_batches(one: RunJudge, run_dir: RunDir, options: JudgingOptions) -> tuple[str, ...]:
    """The statuses of a judge's batches that have not ended."""
    found = one.ask_in_batches(run_dir.file(ROLLOUTS), wait=options.wait)
    if found.done or found.failed:
        say(f"batch: {found.done} answers of {one.name}, {found.failed} failed")
    return found.waiting


def check(name: str, options: JudgingOptions, path: Path | None = None) -> tuple[dict[str, Any], str, Estimate]:
    """What an endpoint does with one harmless item, and what judging the run at `path`, or a thousand short responses, takes."""
    if path is not None:
        open_run(path)
    one = _judge(name, 1, options)
    found = endpoint_check.check_endpoint(one.name, one.file, options.max_cost)
    assert one.file is not None and one.endpoint is not None
    measured = found["latency_ms"]
    if path is None:
        return found, f"{endpoint_check.RESPONSES} short responses", endpoint_check.of_short_responses(one.file, measured)
    missing, _ = one.questions(path / ROLLOUTS)
    return found, f"{path.name}, what is not judged", estimate(one.endpoint, missing, endpoint_check.seconds(measured))


def measure(names: Sequence[str], source: str, options: JudgingOptions) -> dict[str, Any]:
    """Measure judges against human labels, and keep the results for every later run.

    Of several there is a `comparison` too; all of them are then measured on the held-out labels alone.
    """
    labels = load_labels(source)
    judges = [_judge(name, len(labels.rows), options) for name in names]
    _check_names(judges)
    for one in judges:
        one.check_at_hand()
    if len(judges) > 1 or judges[0].name == OFFLINE:
        labels = labels.heldout()
    found = [_measured(one, labels) for one in judges]
    if len(judges) == 1:
        return {"calibrations": [found[0][0]], "comparison": None}
    opinions = {one.name: judgements for one, (_, judgements) in zip(judges, found, strict=True)}
    return {"calibrations": [record for record, _ in found], "comparison": compare(labels.rows, opinions)}


def _measured(one: RunJudge, labels: Labels) -> tuple[dict[str, Any], list[Judgement]]:
    with contextlib.closing(one):
        record, judgements = calibrations.calibrate_on(_as_calibrated(one, labels), labels)
        if one.stopped is not None:
            say(f"judge: {one.name} stopped ({one.stopped}); the rates are of what was judged")
    if record["missing"] == record["n"]:
        raise EngineError(
            f"{one.name} judged none of the {record['n']} labelled responses, so there is nothing to measure. "
            f"The first error: {judgements[0].error}."
        )
    if not any(record[scale]["n"] for scale in calibrations.SCALES):
        raise EngineError(f"{one.name} gives none of what labels hold: compliance, coherence and whether a response declines.")
    return record, judgements


def _check_names(judges: Sequence[RunJudge]) -> None:
    names = [one.name for one in judges]
    if len(set(names)) < len(names):
        raise EngineError(f"Two judges have one name: {', '.join(names)}. Scores carry the name; rename one file.")


def plan(path: Path, names: Sequence[str], options: JudgingOptions) -> dict[str, Any]:
    """What judging would take: calls, tokens, cost and duration; nothing is sent, and no key is needed."""
    open_run(path)
    responses = count_rows(path / ROLLOUTS)
    judges = [_judge(name, responses, options) for name in names]
    return {"run": str(path), "responses": responses, "judges": [one.plan(path / ROLLOUTS) for one in judges]}


def _unscored(scores: Path, judges: Sequence[RunJudge]) -> dict[str, str]:
    """The judges that scored no response, each with its first error."""
    without = [one.name for one in judges if not count_scored(scores, one.name)]
    if not without:
        return {}
    table = read_table(scores, ["judge", "error"])
    errors = {name: table.filter(pc.equal(table["judge"], name))["error"].drop_null().to_pylist() for name in without}
    return {name: found[0] if found else "no row" for name, found in errors.items()}


def _judge(name: str, expected: int, options: JudgingOptions, budget: Budget | None = None) -> RunJudge:
    config = JudgeConfig(name=name, repeat=options.repeat, max_cost=options.max_cost)
    return RunJudge(config, expected, options.overrides, budget, batch=options.batch)


def _as_calibrated(one: RunJudge, labels: Labels) -> Grader:
    """The judge as it is measured: rules with what comes with the shipped labels, or by the text alone on others."""
    if isinstance(one.grader, FittedGrader):
        return one.grader if any(label.item.view for label in labels.rows) else one.grader.by_text()
    rules = one.name if labels.source == EMBEDDED else TEXT_ONLY
    return calibrations.offline_on_labels(rules) or one.grader if one.name == OFFLINE else one.grader


def _summarise(run_dir: RunDir) -> dict[str, Any]:
    identity = run_dir.manifest["identity"]["config"]
    if run_dir.manifest["kind"] == RUN:
        return summarise_run(RunConfig.model_validate(identity), run_dir)
    rollouts, scores = read_rollouts(run_dir.file(ROLLOUTS)), read_scores(run_dir.file(SCORES))
    shown = [row["variant"] for row in read_summary(run_dir).get("confirm", [])] if run_dir.file(SUMMARY).is_file() else []
    of_test = pc.equal(rollouts["split"].cast(pa.string()), "test")
    tested = rollouts.filter(of_test) if pc.any(of_test).as_py() else rollouts
    places = pc.index_in(tested["variant"].cast(pa.string()), pa.array(shown, pa.string())).to_pylist()
    tested = tested.take(sorted(range(len(places)), key=lambda row: len(shown) if places[row] is None else places[row]))
    figures = [figure for name, rows in scores.items() for figure in figures_by(tested, rows, judge=name)]
    judges = [judge_entry(name, rows, run_dir.manifest) for name, rows in scores.items()]
    model = rollouts["model"][0].as_py()
    add_biases(figures, judges, model)
    summary = {
        "kind": SWEEP_RUN,
        "variant": identity["variant"],
        "model": model,
        "judges": judges,
        "agreement": agreements(scores),
        "differential": differential(figures),
        "figures": figures,
    }
    with run_dir.writing(JUDGED, by="bin/judge"):
        write_json(run_dir.file(JUDGED), summary)
    return summary


def _has_shards(path: Path) -> bool:
    return any(path.glob("rollouts.shards/*.parquet"))
