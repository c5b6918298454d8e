"""bin/map: which kinds of refusal share a direction."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.commands import cli
from engine.errors import EngineError

app = cli.Application(
    "bin/map --variant smollm2_135m_k1",
    "bin/map --variant smollm2_135m_k1 --kinds inability,policy --layers 18,22",
)


@app.command()
def map_refusals(
    variant: cli.VariantOption = None,
    name: cli.NameOption = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers tried on selection requests, such as 14,18,22; one is taken for the whole map.")
    ] = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    sets: Annotated[Path | None, typer.Option(help="Folder of NAME_train, NAME_selection, NAME_test; else the embedded.")] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Some kinds of refusal, such as inability,policy; the default is all.")
    ] = None,
    least: Annotated[
        float, typer.Option(min=0, max=1, help="Share of selection requests that a kind in the map has declined.")
    ] = 0.2,
    controls: Annotated[int, typer.Option(min=1, help="Random directions.")] = 3,
    max_tokens: Annotated[int, typer.Option(min=1, help="New tokens per response.")] = 32,
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(help="Run directory; the default is runs/NAME.")] = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Directions of nine kinds of refusal, all of harmless requests; cosines, and "remove one, watch declining in another".

    Writes map.json into the run directory, which the report shows.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.configs.load import load_config
        from engine.paths import default_run_dir

        tried = cli.parse_layers(layers)
        chosen = cli.variant_overrides(
            settings, None, None, model, None, template=template, system=system, name=name, judge=judge
        )
        config = load_config(variant, chosen)
        if tried is None and config.directions.layers == "sweep":
            raise EngineError(
                f"{config.variant} has no published layer. Name some to try with --layers, such as --layers 12,16,20."
            )
        options: dict[str, Any] = {
            "sets": None if sets is None else str(sets),
            "kinds": cli.items(kinds),
            "layers": tried or list(config.directions.layers)[:1],
            "least": least,
            "controls": controls,
            "max_tokens": max_tokens,
        }
        if dry_run:
            cli.show_dry_run(config, {"map": options}, layers=False)
            return
        from engine.display.console import show
        from engine.display.map_tables import map_view
        from engine.study.jobs import map_refusals as work

        found = work(config, out or default_run_dir(config.variant), **options)
        show(map_view(found), form, found)


if __name__ == "__main__":
    app(prog_name="bin/map")
