"""bin/sweep: every layer, alpha and subspace of a model, screened, raced, and confirmed on prompts that did not choose."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.commands import cli
from engine.errors import EngineError

app = cli.Application(
    "bin/sweep --variant smollm2_135m_k1 --alphas 0.5,1",
    "bin/sweep --model DIR --pairs pairs.csv --requests requests.csv --out runs/mine-sweep",
    "bin/rollout --variant runs/mine-sweep/winner.toml   # then its winner",
)


VariantOption = Annotated[str | None, typer.Option("--variant", help="A name in configs/, or a TOML file.", metavar="NAME")]
SelectionOption = Annotated[str | None, typer.Option("--selection", help="Pairs that choose; no training or test prompts.")]
LayersOption = Annotated[str | None, typer.Option("--layers", help="Layers tried one by one, such as 4-20,25.")]
AlphasOption = Annotated[str | None, typer.Option("--alphas", help="Shares removed, such as 0.5,1,1.5.")]
PositionsOption = Annotated[str | None, typer.Option("--positions", help="Such as last,last_instruction or post_instruction.")]
SubspacesOption = Annotated[str | None, typer.Option("--subspaces", help="Such as top3,top5,1-15,3+9+12; or none.")]
ExhaustiveOption = Annotated[bool, typer.Option("--exhaustive", help="Every candidate at full length; no screen, no race.")]
CheckOption = Annotated[
    str | None, typer.Option("--check-export", help="Compare a variant's hot swap with its checkpoint, and stop.", metavar="NAME")
]


OF_SEARCH = ("selection", "layers", "alphas", "positions", "subspaces", "exhaustive", "max_kl", "min_induce", "max_depth")
ARDITI = "arditi"
UNREAD_BY_ARDITI = [
    *("layers", "alphas", "positions", "subspaces", "exhaustive", "max_kl", "min_induce", "max_depth", "engines", "clean"),
    "judge",
]
UNREAD_BY_CHECK = ("variant", "engines", "judge", "out", "clean", "dry_run", *OF_SEARCH)


@app.command()
def sweep(
    context: typer.Context,
    variant: VariantOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    selection: SelectionOption = None,
    requests: cli.RequestsOption = None,
    layers: LayersOption = None,
    alphas: AlphasOption = None,
    positions: PositionsOption = None,
    subspaces: SubspacesOption = None,
    exhaustive: ExhaustiveOption = False,
    max_kl: Annotated[float | None, typer.Option(help="The screen's limit on the KL on answered prompts, nats.")] = None,
    min_induce: Annotated[float | None, typer.Option(help="The screen's limit on the log-odds that adding induces.")] = None,
    max_depth: Annotated[float | None, typer.Option(help="The screen's limit on the layer, as a share of the depth.")] = None,
    num_requests: Annotated[
        int | None, typer.Option(show_default="all", help="How many test requests, from the top of the file.")
    ] = None,
    engines: Annotated[str, typer.Option(help="Engines side by side, or auto: as many as the GPUs hold.")] = "auto",
    kinds: cli.KindsOption = None,
    split: cli.SplitOption = None,
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(show_default="runs/NAME-sweep", help="Run directory.")] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Throw away what an earlier sweep left there.")] = False,
    check_export: CheckOption = None,
    procedure: Annotated[
        str | None, typer.Option("--as", help="arditi: that paper's procedure as published, instead of ours.", metavar="NAME")
    ] = None,
    edit_form: cli.EditFormOption = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Try every layer, alpha and position, and subspaces of the best; print the study's table and write the winner.

    Results land in the run directory: sweep.parquet, screen.parquet, rollouts, likelihoods and scores, winner.toml,
    product_by_layer.png. Run it again to continue an interrupted sweep, or to print a finished one.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        overrides = cli.variant_overrides(
            settings,
            None,
            None,
            model,
            pairs,
            columns=columns,
            data__selection_pairs=cli.existing_or_embedded(selection),
            data__test_requests=cli.existing_or_embedded(requests),
            data__num_requests=num_requests,
            data__kinds=kinds,
            data__split=split,
            judge=judge,
            sweep__layers=layers,
            sweep__alphas=_items(alphas),
            sweep__positions=_items(positions),
            sweep__subspaces=_subspaces(subspaces),
            sweep__exhaustive=exhaustive or None,
            sweep__max_kl=max_kl,
            sweep__min_induce=min_induce,
            sweep__max_depth=max_depth,
            edit__form=edit_form,
            template=template,
            system=system,
        )
        if check_export is not None:
            cli.refuse_unread(context, "--check-export", UNREAD_BY_CHECK)
            _check_export(check_export, overrides, form)
            return
        if procedure is not None:
            cli.refuse_unread(context, "--as", UNREAD_BY_ARDITI)
            _as_published(procedure, variant, overrides, dry_run=dry_run, form=form, out=out)
            return
        _sweep(variant, overrides, dry_run=dry_run, form=form, out=out, engines=_count(engines), clean=clean)


def _count(engines: str) -> int | None:
    """The number after --engines; None for auto."""
    if engines == "auto":
        return None
    if not engines.isdigit() or int(engines) < 1:
        raise EngineError(f"--engines takes a number from 1 on, or auto; found '{engines}'.")
    return int(engines)


def _sweep(variant: str | None, overrides: dict[str, Any], *, dry_run: bool, form: str, out: Path | None, **options: Any) -> None:
    from engine.configs.load import load_config
    from engine.paths import default_run_dir

    config = load_config(variant, overrides)
    folder = out or default_run_dir(f"{config.variant}-sweep")
    from engine.display.console import show

    if dry_run:
        from engine.display.plan_words import plan_view
        from engine.sweep.plan import plan_sweep

        plan = plan_sweep(config, folder).as_dict()
        show(plan_view(plan), form, plan)
        return
    from engine.display.sweep_tables import sweep_view
    from engine.runs.files import WINNER
    from engine.sweep.run import run_sweep

    with cli.stdout_for_data():
        summary = run_sweep(config, folder, **options)
    show(sweep_view(summary, str(folder / WINNER)), form, summary)
    if summary["failures"]:
        raise typer.Exit(1)


def _as_published(
    procedure: str, variant: str | None, overrides: dict[str, Any], *, dry_run: bool, form: str, out: Path | None
) -> None:
    """A published procedure by its name; "arditi" is the one there is."""
    from engine.configs.load import load_config
    from engine.display.console import show
    from engine.display.study_tables import plain_table
    from engine.paths import default_run_dir
    from engine.study.named import run_study

    if procedure != ARDITI:
        raise EngineError(f"--as takes {ARDITI}; found '{procedure}'.")
    config = load_config(variant, overrides)
    if dry_run:
        cli.show_dry_run(config, {"as": procedure}, layers=False)
        return
    found = run_study(ARDITI, config, out or default_run_dir(f"{config.variant}-{ARDITI}"), {})
    table = plain_table(ARDITI, found)
    show([table] if table else [], form, found)


def _check_export(name: str, overrides: dict[str, Any], form: str) -> None:
    from engine.configs.load import load_config
    from engine.sweep.faithful import check_export

    kept = {key: value for key, value in overrides.items() if not key.startswith("sweep.")}
    report = check_export(load_config(name, kept))
    if form == "json":
        cli.print_json(report)
    else:
        counted = f"{report['variant']} ({report['variant_hash']}): {report['equal']} of {report['prompts']} greedy responses"
        print(f"{counted} of the hot swap equal, token for token, those of a new engine on the checkpoint bin/edit writes")
        if report["weights_equal"] is not None:
            same = "the same" if report["weights_equal"] else "NOT the same"
            print(f"every weight of the two engines is {same}, by vLLM's digests")
    if not report["ok"]:
        raise typer.Exit(1)


def _items(text: str | None) -> list[str] | None:
    return None if text is None else cli.items(text)


def _subspaces(text: str | None) -> list[str] | None:
    """topN and layer lists; a list of several parts takes plus signs, as 3+9+12, for the comma parts subspaces."""
    if text is None or text == "none":
        return None if text is None else []
    return [part.replace("+", ",") for part in _items(text) or []]


if __name__ == "__main__":
    app(prog_name="bin/sweep")
