"""bin/replay: an edited folder made again from its own record, byte for byte."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/replay edited",
    "bin/replay edited --from-data --base /models/base",
)


@app.command()
def replay(
    folder: Annotated[Path, typer.Argument(help="A folder that bin/edit wrote, or the README.md in it.")],
    base: Annotated[str | None, typer.Option(help="The base's folder; the embedded model is found by itself.")] = None,
    from_data: Annotated[
        bool, typer.Option("--from-data", help="Extract the directions anew, not from the folder's own basis.")
    ] = False,
    pairs: Annotated[str | None, typer.Option("--pairs", help="The record's training pairs, where they are a file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Keep what was made here.")] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Make an edited folder again from its record, and compare every file byte for byte; exits with 1 at a difference.

    The base is known by its hash. With --from-data everything from the prompts on is made again.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.checkpoints.edited_folder import folder_of
        from engine.errors import EngineError

        if pairs is not None and not from_data:
            raise EngineError("--pairs is read with --from-data alone. Add it, or leave --pairs out.")
        folder_of(folder)
        from engine.checkpoints.replay import replay as run

        found = run(folder, cli.existing_or_embedded(base), pairs=cli.existing_or_embedded(pairs), from_data=from_data, out=out)
        if as_json:
            cli.print_json(asdict(found) | {"identical": found.difference is None})
        else:
            changed = "; ".join(f"{name} {old} then, {new} now" for name, (old, new) in found.versions.items())
            print(f"{found.folder} ({found.variant}): {found.files} files, {found.difference or 'identical byte for byte'}")
            print(f"versions: {changed or 'the same'}")
        if found.difference is not None:
            raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="bin/replay")
