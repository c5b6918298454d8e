"""bin/edit: a variant as a checkpoint folder that transformers and vLLM open."""

from pathlib import Path
from typing import Annotated

import typer

from engine import cli

app = typer.Typer(add_completion=False)


@app.command()
def edit(
    variant: cli.VariantOption,
    out: Annotated[Path, typer.Option(help="Folder of the edited checkpoint; it must not exist yet.")],
    layers: cli.LayersOption = None,
    alpha: cli.AlphaOption = None,
    model: cli.ModelOption = None,
    pairs: cli.PairsOption = None,
    settings: cli.SetOption = None,
    run: Annotated[Path | None, typer.Option(help="Run directory with the directions; the default is runs/NAME.")] = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Write an edited checkpoint: W - alpha Q (Q^T W) on every o_proj and down_proj, all else byte-identical.

    The directions come from the variant's run directory, where they are extracted if they are not there yet.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.configfile import load_config
        from engine.paths import default_run_dir

        config = load_config(variant, cli.variant_overrides(settings, layers, alpha, model, pairs))
        if dry_run:
            cli.print_json(config.model_dump(mode="json"))
            return
        from engine.pipeline import write_checkpoint

        record = write_checkpoint(config, run or default_run_dir(config.variant), out)
        if as_json:
            cli.print_json(record)
        else:
            done = f"{out}: {len(record['tensors'])} tensors edited, variant {record['variant_hash']}"
            print(f"{done}; its README.md says what was removed")


if __name__ == "__main__":
    app(prog_name="bin/edit")
