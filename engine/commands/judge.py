"""bin/judge: judge or re-judge the responses of a run, or measure a judge against human labels."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.commands import cli

app = cli.Application(
    "bin/judge runs/smollm2_135m_k1 --judge deepseek --dry-run   # calls and cost",
    "bin/judge runs/smollm2_135m_k1 --judge deepseek",
    "bin/judge --check judge.toml   # what an endpoint can do",
)

DEFAULT_JUDGE = "deepseek"
RunArgument = Annotated[Path | None, typer.Argument(metavar="RUN_DIR", help="A run directory of bin/rollout or bin/sweep.")]
JudgeOption = Annotated[
    list[str] | None,
    typer.Option("--judge", metavar="NAME", help="A judge in configs/judges/, a TOML file, or offline; may be repeated."),
]
CalibrateOption = Annotated[
    str | None,
    typer.Option("--calibrate", metavar="FILE", help="Labels: prompt, response, compliance; or embedded:labelled."),
]


@app.command()
def judge(
    run_dir: RunArgument = None,
    judges: JudgeOption = None,
    calibrate: CalibrateOption = None,
    repeat: Annotated[int, typer.Option(min=1, help="Ask about each response so often: the judge's own variance.")] = 1,
    correct: Annotated[bool, typer.Option("--correct", help="Correct rates for the judge's errors (Rogan-Gladen).")] = False,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Stop before the calls can cost more than this.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the judge's file: endpoint.model=NAME."),
    ] = None,
    trust_config: cli.TrustOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print calls, tokens, cost and duration, and stop.")] = False,
    check: Annotated[
        str | None, typer.Option("--check", metavar="NAME", help="Send one harmless item; print what the endpoint can do.")
    ] = None,
    batch: Annotated[bool, typer.Option("--batch", help="Ask in a batch: answered within a day, at half the price.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="With --batch: upload and leave; run again to fetch.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="With --calibrate: the rates against the judges, drawn.")
    ] = None,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Judge every response of a run for compliance and coherence, each 0, 0.5 or 1; or measure a judge against human labels.

    Scores land in RUN_DIR/scores.parquet, a row per response, judge and repeat. What is judged already is not asked again;
    what failed is. Exit status 1 where a judge stopped before the end, or scored nothing.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.errors import EngineError
        from engine.rollout.judge_again import JudgingOptions

        form = cli.check_form(form, as_json)
        if no_wait and not batch:
            raise EngineError("--no-wait is for --batch.")
        options = JudgingOptions(repeat, max_cost, overrides=cli.parse_settings(settings), batch=batch, wait=not no_wait)
        if check is not None:
            if judges or calibrate or correct or dry_run or batch or repeat > 1:
                raise EngineError("--check takes a run directory, --set and --max-cost alone. Leave the other options out.")
            _check(check, run_dir, options, form=form)
            return
        if (run_dir is None) == (calibrate is None):
            raise EngineError("Give a run directory to judge, or --calibrate FILE to measure a judge; one of the two.")
        _check_input(run_dir, calibrate)
        names = judges or [_default_judge(needs_key=not dry_run)]
        if calibrate is not None:
            if dry_run or correct or batch or repeat > 1:
                raise EngineError("--calibrate takes no --dry-run, --correct, --batch or --repeat.")
            if plot is not None and len(names) < 2:
                raise EngineError("--plot shows the rate against the judge: give two judges or more with --calibrate.")
            _calibrate(names, calibrate, options, plot, form=form)
        elif run_dir is not None:
            _judge(run_dir, names, options, correct=correct, dry_run=dry_run, form=form)


def _check_input(run_dir: Path | None, calibrate: str | None) -> None:
    """Raise EngineError for a run or labels that cannot be judged, before any judge is looked at."""
    from engine.rollout.judge_again import open_run
    from engine.scoring.labels import load_labels

    if run_dir is not None:
        open_run(run_dir)
    if calibrate is not None:
        load_labels(calibrate)


def _default_judge(*, needs_key: bool) -> str:
    """DeepSeek, the study's judge. Raises EngineError without its key: rules in its place are given only where asked for."""
    from engine.configs.judges import OFFLINE, load_judge
    from engine.errors import EngineError
    from judging.errors import JudgeError

    file = load_judge(DEFAULT_JUDGE)
    try:
        if needs_key and file is not None and file.endpoint is not None:
            file.endpoint.key()
        return DEFAULT_JUDGE
    except JudgeError as error:
        raise EngineError(
            f"No --judge is given, and the default is {DEFAULT_JUDGE}. {error} Or ask for the rules, "
            f"which are no language model: --judge {OFFLINE}."
        ) from error


def _judge(run_dir: Path, names: list[str], options: Any, *, correct: bool, dry_run: bool, form: str) -> None:
    from engine.display.console import show
    from engine.display.progress import say
    from engine.display.run_tables import judged_view
    from engine.rollout import judge_again
    from engine.scoring.biases import add_corrections

    if dry_run:
        plan = judge_again.plan(run_dir, names, options)
        _say_plan(plan)
        cli.print_json(plan)
        return
    summary = judge_again.judge(run_dir, names, options)
    if correct:
        add_corrections(summary)
    show(judged_view(summary), form, summary)
    for name, error in summary["unscored"].items():
        say(f"judge: {name} scored none of the responses; the first error: {error}. bin/judge --check shows what it can do.")
    if summary["stopped"] or summary["unscored"]:
        raise typer.Exit(1)


def _say_plan(plan: dict[str, Any]) -> None:
    """The plan of each endpoint as a sentence; the rules and local models have no calls."""
    from engine.display.progress import say
    from judging.estimate import Estimate

    for judge in plan["judges"]:
        if "calls" in judge:
            wanted = Estimate(**{name: judge[name] for name in Estimate.__dataclass_fields__})
            say(f"judge {judge['judge']}: {wanted}; {judge['cached']} answers are kept already")


def _check(name: str, run_dir: Path | None, options: Any, *, form: str) -> None:
    from engine.display.console import show
    from engine.rollout.judge_again import check
    from engine.scoring.endpoint_check import check_json, check_view

    found, run, wanted = check(name, options, run_dir)
    show(check_view(found, run, wanted), form, check_json(found, run, wanted))
    if not found["verdict"]:
        raise typer.Exit(1)


def _calibrate(names: list[str], source: str, options: Any, plot: Path | None, *, form: str) -> None:
    from engine.display.comparison_tables import comparison_view
    from engine.display.console import show
    from engine.display.run_tables import calibration_view
    from engine.rollout.judge_again import measure

    found = measure(names, source, options)
    records, comparison = found["calibrations"], found["comparison"]
    view = [block for record in records for block in calibration_view(record)]
    show([*view, *comparison_view(comparison)], form, records[0] if comparison is None else found)
    if plot is not None and comparison is not None:
        from engine.display.plotting import save
        from engine.report.judge_plot import rates_by_judge

        save(rates_by_judge(comparison), plot)


if __name__ == "__main__":
    app(prog_name="bin/judge")
