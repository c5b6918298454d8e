"""bin/transfer: a run's directions on another model, or beside a LoRA."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/transfer --variant smollm2_135m_k1 --to DIR",
)


@app.command()
def transfer(
    context: typer.Context,
    variant: cli.VariantOption = None,
    name: cli.NameOption = None,
    to: Annotated[str | None, typer.Option(help="Another model of the same width: a folder or a hub repository.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A PEFT LoRA whose writes are compared with the directions.")] = None,
    layers: cli.LayersOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(show_default="runs/NAME", help="Run directory.")] = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Compare the run's directions with another model's own, fold both into that model, and generate with each.

    Writes transfer.json (adapter.json with --adapter) into the run directory.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        if adapter is not None:
            cli.refuse_unread(context, "--adapter", ("judge",))
        from engine.configs.load import load_config
        from engine.paths import default_run_dir

        chosen = cli.variant_overrides(
            settings, layers, None, model, pairs, columns=columns, template=template, system=system, name=name, judge=judge
        )
        config = load_config(variant, chosen)
        if dry_run:
            cli.show_dry_run(config, {"to": to, "adapter": str(adapter) if adapter else None})
            return
        from engine.display.console import show
        from engine.display.study_tables import transfer_view
        from engine.study.jobs import transfer as work

        found = work(config, out or default_run_dir(config.variant), to=cli.existing_or_embedded(to), adapter=adapter)
        show(transfer_view(found), form, found)


if __name__ == "__main__":
    app(prog_name="bin/transfer")
