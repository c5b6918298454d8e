"""bin/cache: what the project keeps between commands, how large it is, and its removal."""

from dataclasses import asdict
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application("bin/cache", "bin/cache --clean served")


@app.command()
def cache(
    clean: Annotated[list[str] | None, typer.Option(metavar="PART", help="Remove this part; may be repeated.")] = None,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Show what the cache holds, how large it is and what making it again costs; or remove a part of it.

    The cache is .cache in the project, or the folder that REFUSAL_ROLLOUT_CACHE names.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.display.console import show
        from engine.display.listing_words import cache_view
        from engine.paths import cache_dir
        from engine.runs.listing import cached, check_part, remove_cached

        for name in clean or []:
            check_part(name)
        for name in clean or []:
            remove_cached(name)
        found = [asdict(part) for part in cached()]
        show(cache_view(found, str(cache_dir())), form, found)


if __name__ == "__main__":
    app(prog_name="bin/cache")
