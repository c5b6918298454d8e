"""bin/behave: what an edit does beyond the rate."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/behave --variant smollm2_135m_k1",
)


@app.command()
def behave(
    variant: cli.VariantOption = None,
    name: cli.NameOption = None,
    layers: cli.LayersOption = None,
    alpha: cli.AlphaOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    num_prompts: Annotated[int, typer.Option(min=2, help="Responses of each kind whose KL is computed.")] = 100,
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(show_default="runs/NAME", help="Run directory.")] = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """KL along whole responses, length, repetition, and how many tokens a declined share needs; finishes the run first.

    Writes behaviour.json into the run directory.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.configs.load import load_config
        from engine.paths import default_run_dir

        config = load_config(
            variant,
            cli.variant_overrides(
                settings,
                layers,
                alpha,
                model,
                pairs,
                columns=columns,
                template=template,
                system=system,
                name=name,
                judge=judge,
            ),
        )
        if dry_run:
            cli.show_dry_run(config, {"num_prompts": num_prompts})
            return
        from engine.display.console import show
        from engine.display.study_tables import behaviour_view
        from engine.study.jobs import behave as work

        found = work(config, out or default_run_dir(config.variant), num_prompts=num_prompts)
        show(behaviour_view(found), form, found)


if __name__ == "__main__":
    app(prog_name="bin/behave")
