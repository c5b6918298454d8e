"""`refusal-rollout COMMAND`: every command of bin/ by one name, from any folder, with completion for the shell."""

import typer

from engine.commands.application import SETTINGS, Commands, version

app = typer.Typer(cls=Commands, context_settings=SETTINGS, no_args_is_help=True, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def commands(
    show_version: bool = typer.Option(False, "--version", help="Print the versions and stop.", metavar=""),
) -> None:
    """Study how refusal is represented in instruction-tuned language models. Each command takes -h."""
    if show_version:
        print(version())
        raise typer.Exit


def main() -> None:
    app(prog_name="refusal-rollout")


if __name__ == "__main__":
    main()
