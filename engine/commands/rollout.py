"""bin/rollout: the main job, from paired prompts to scored Parquet."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli
from engine.commands.factors import parse_factors

app = cli.Application(
    "bin/rollout --variant smollm2_135m_k1",
    "bin/rollout --model DIR --pairs pairs.csv --requests requests.csv --layers 16 --name mine",
    "bin/rollout --variant smollm2_135m_k1 --dry-run   # what it would do and cost",
)


@app.command()
def rollout(
    variant: cli.VariantOption = None,
    name: cli.NameOption = None,
    layers: cli.LayersOption = None,
    directions: cli.DirectionsOption = None,
    alpha: cli.AlphaOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    requests: cli.RequestsOption = None,
    answerable: cli.AnswerableOption = None,
    num_requests: Annotated[
        int | None, typer.Option(show_default="all", help="How many test requests, from the top of the file.")
    ] = None,
    num_answerable: Annotated[
        int | None, typer.Option(show_default="all", help="How many answerable test requests; 0 leaves them out.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary", metavar="FACTOR=LEVELS", help="Ask the same prompts under each: system=a.txt,none; may be repeated."
        ),
    ] = None,
    kinds: cli.KindsOption = None,
    split: cli.SplitOption = None,
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(show_default="runs/NAME", help="Run directory.")] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Throw away what an earlier run left in the run directory.")] = False,
    edit_form: cli.EditFormOption = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Extract directions, generate with base and variant, score, and print the summary.

    Results land in the run directory: manifest.json, directions.safetensors, rollouts.parquet, likelihoods.parquet,
    scores.parquet, summary.json. Run it again to continue an interrupted run, or to print a finished one.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.configs.load import load_config
        from engine.paths import default_run_dir

        chosen = cli.variant_overrides(
            settings,
            layers,
            alpha,
            model,
            pairs,
            columns=columns,
            directions__file=cli.existing_or_embedded(directions),
            data__test_requests=cli.existing_or_embedded(requests),
            data__test_answerable=cli.existing_or_embedded(answerable),
            data__num_requests=num_requests,
            data__num_answerable=num_answerable,
            data__kinds=kinds,
            data__split=split,
            vary=parse_factors(vary),
            judge=judge,
            edit__form=edit_form,
            template=template,
            system=system,
            name=name,
        )
        config = load_config(variant, chosen)
        folder = out or default_run_dir(config.variant)
        from engine.display.console import show

        if dry_run:
            from engine.display.plan_words import plan_view
            from engine.rollout.plan import plan_run

            plan = plan_run(config, folder).as_dict()
            show(plan_view(plan), form, plan)
            return
        from engine.runs.of_config import given_layers
        from engine.runs.session import Session

        given_layers(config)
        session = Session(config)  # what is wrong with prompts or model is said before half a second of imports
        from engine.display.run_tables import summary_view
        from engine.rollout.run import run

        summary = run(config, folder, clean=clean, session=session)
        show(summary_view(summary), form, summary)
        if summary["stopped"]:
            raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="bin/rollout")
