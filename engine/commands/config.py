"""bin/config: every key of a variant's file, its value, where that comes from, its default and what it means."""

from dataclasses import asdict
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/config   # all keys, with their defaults",
    "bin/config sampling directions.position",
    "bin/config --variant smollm2_135m_k1 sweep   # and which file has the last word",
)


@app.command()
def config(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Keys or sections, such as sampling or edit.alpha; all by default.")
    ] = None,
    variant: cli.VariantOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Show every key that a variant's file or --set may hold: its value, where that comes from, its default, what it means."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.configs.keys import chosen_keys, keys_of, sources_of
        from engine.configs.load import load_config
        from engine.display.config_words import config_view
        from engine.display.console import show

        overrides = cli.parse_settings(settings)
        loaded = load_config(variant, overrides if variant else {"model.path": "DIR", **overrides})
        found = chosen_keys(keys_of(loaded, sources_of(variant, overrides)), keys or [])
        show(config_view(found, in_words=form == "text"), form, [asdict(key) for key in found])


if __name__ == "__main__":
    app(prog_name="bin/config")
