"""bin/extract: the directions of a model and what they are worth."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli
from extraction.estimators import ESTIMATORS

app = cli.Application(
    "bin/extract --variant smollm2_135m_k1",
    "bin/extract --variant smollm2_135m_k1 --positions post_instruction",
)


@app.command()
def extract(
    context: typer.Context,
    variant: cli.VariantOption = None,
    name: cli.NameOption = None,
    layers: cli.LayersOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    positions: Annotated[
        str | None, typer.Option(help="More positions, such as last_instruction,post_instruction,response.", metavar="NAMES")
    ] = None,
    estimators: Annotated[str, typer.Option(help=f"Estimators to compare: {','.join(ESTIMATORS)}; or all.")] = "mean_difference",
    unrelated: Annotated[
        bool, typer.Option("--unrelated", help="Compare twins with unrelated prompts (data.unrelated).")
    ] = False,
    padded: Annotated[
        bool, typer.Option("--padded", help="Compare with naive padded batches, whose pads are attended to.")
    ] = False,
    harmfulness: Annotated[
        bool, typer.Option("--harmfulness", help="Which position reads what is asked, which what is done; runs the rollouts.")
    ] = False,
    effect: Annotated[
        bool, typer.Option("--effect", help="Fold each compared direction in, with controls, and generate on test requests.")
    ] = False,
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(show_default="runs/NAME", help="Run directory.")] = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Extract every layer's direction and measure it on pairs that did not make it: separability, stability, structure.

    Writes directions.safetensors, geometry.json and, where asked for, padded.json, reading.json and effect.json into the run
    directory.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        if not (effect or harmfulness):
            cli.refuse_unread(context, "bin/extract without --effect and --harmfulness", ["judge"])
        from engine.configs.load import load_config
        from engine.paths import default_run_dir

        chosen = cli.variant_overrides(
            settings, layers, None, model, pairs, columns=columns, template=template, system=system, name=name, judge=judge
        )
        config = load_config(variant, chosen)
        if dry_run:
            cli.show_dry_run(config, layers=False)
            return
        from engine.display.console import show
        from engine.display.study_tables import extract_view
        from engine.study.jobs import Extract
        from engine.study.jobs import extract as work

        names = list(ESTIMATORS) if estimators == "all" else cli.items(estimators)
        asked = Extract(cli.items(positions), names, unrelated, padded, harmfulness, effect)
        found = work(config, out or default_run_dir(config.variant), asked)
        show(extract_view(found), form, found)


if __name__ == "__main__":
    app(prog_name="bin/extract")
