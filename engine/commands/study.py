"""bin/study: a study by its name."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/study arditi --variant smollm2_135m_k1",
)


@app.command()
def study(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A file of engine/study/ that has make_STUDY(study, *, ...).")],
    variant: cli.VariantOption = None,
    layers: cli.LayersOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="An option of the study; may be repeated.")
    ] = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(show_default="runs/NAME", help="Run directory.")] = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Run a study that has no command of its own. Writes STUDY.json into the run directory, which the report shows.

    engine/study/README.md says how to add one, in one file.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.configs.load import load_config
        from engine.paths import default_run_dir
        from engine.study.named import file_of, run_study

        file_of(name)
        config = load_config(
            variant,
            cli.variant_overrides(settings, layers, None, model, pairs, columns=columns, template=template, system=system),
        )
        chosen = cli.parse_settings(options, "--option")
        if dry_run:
            cli.show_dry_run(config, {"study": name, "options": chosen})
            return
        from engine.display.console import show
        from engine.display.study_tables import plain_table

        found = run_study(name, config, out or default_run_dir(config.variant), chosen)
        table = plain_table(name, found)
        show([table] if table else [f"{name}.json is written; it has no rows to show."], form, found)


if __name__ == "__main__":
    app(prog_name="bin/study")
