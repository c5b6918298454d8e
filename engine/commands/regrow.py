"""bin/regrow: extract, remove, extract again."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/regrow --variant smollm2_135m_k1",
)


@app.command()
def regrow(
    variant: cli.VariantOption = None,
    name: cli.NameOption = None,
    layers: cli.LayersOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often to remove what separates.")] = 3,
    num_prompts: Annotated[int, typer.Option(min=2, help="Test requests generated in each round.")] = 32,
    max_tokens: Annotated[int, typer.Option(min=1, help="New tokens per response.")] = 32,
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(show_default="runs/NAME", help="Run directory.")] = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Take the directions out of every write by hooks, extract anew, take those out too: what grows back, and where.

    Writes regrowth.json into the run directory.
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
                None,
                model,
                pairs,
                columns=columns,
                template=template,
                system=system,
                name=name,
                judge=judge,
            ),
        )
        options = {"rounds": rounds, "num_prompts": num_prompts, "max_tokens": max_tokens}
        if dry_run:
            cli.show_dry_run(config, {"regrowth": options})
            return
        from engine.display.console import show
        from engine.display.study_tables import regrowth_table
        from engine.study.jobs import regrow as work

        found = work(config, out or default_run_dir(config.variant), **options)
        show([regrowth_table(found)], form, found)


if __name__ == "__main__":
    app(prog_name="bin/regrow")
