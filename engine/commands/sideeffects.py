"""bin/sideeffects: what an edit does beside refusal, on harmless items, base and variant in one engine."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/sideeffects --variant smollm2_135m_k1",
)
NAME = "sideeffects"


@app.command()
def sideeffects(
    variant: cli.VariantOption = None,
    layers: cli.LayersOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="New tokens of a response.")] = 48,
    margin: Annotated[float, typer.Option(help="Difference that counts as none: a share, 0.1 for 10 points.")] = 0.1,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(help="Run directory; the default is runs/NAME.")] = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Confidence, hedging, optimism, pushback, system prompts, JSON, recall and language: base against variant, by rules.

    Writes sideeffects.json into the run directory, which the report shows.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.configs.load import load_config
        from engine.lmeval.equivalence import check_margin

        check_margin(margin)
        chosen = cli.variant_overrides(settings, layers, None, model, pairs, columns=columns, template=template)
        config = load_config(variant, chosen)
        if dry_run:
            cli.show_dry_run(config, {"max_tokens": max_tokens, "margin": margin})
            return
        from engine.display.console import show
        from engine.display.study_tables import plain_table
        from engine.paths import default_run_dir
        from engine.study.named import run_study

        options = {"max_tokens": max_tokens, "margin": margin}
        found = run_study(NAME, config, out or default_run_dir(config.variant), options)
        table = plain_table(NAME, found)
        show([table] if table else [], form, found)


if __name__ == "__main__":
    app(prog_name="bin/sideeffects")
