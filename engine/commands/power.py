"""bin/power: how many prompts or kinds a difference takes."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/power --difference 0.05 --base 0.7",
    "bin/power runs/smollm2_135m_k1 --difference 0.05",
)


@app.command()
def power(
    difference: Annotated[float, typer.Option(help="Difference to see: a share, 0.05 or -0.05 for 5 points.")],
    run_dir: Annotated[
        Path | None, typer.Argument(metavar="[RUN_DIR]", help="A finished run: rate, ICC, correlation and sizes come from it.")
    ] = None,
    base: Annotated[float | None, typer.Option(help="The base's rate, between 0 and 1.")] = None,
    icc: Annotated[float | None, typer.Option(help="Intraclass correlation of prompts of one kind; 0 without a run.")] = None,
    correlation: Annotated[
        float | None, typer.Option(help="Of both models' outcomes on one prompt; 0.5 without a run.", show_default=False)
    ] = None,
    kinds: Annotated[int | None, typer.Option(help="Kinds of prompts (the column category).")] = None,
    rows_per_kind: Annotated[int | None, typer.Option(help="Prompts of each kind; 1 without a run.")] = None,
    figure: Annotated[str, typer.Option(help="The run's figure: declined or complied.")] = "declined",
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="The run's variant; its first without.")] = None,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Say how many prompts, and how many kinds of them, a difference between two models takes to be seen.

    80 % power, two-sided at 0.05, both models on the same prompts. By simulation, in seconds; nothing is written.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.display.console import show
        from engine.display.power_words import power_view
        from engine.study.power_answer import answer

        asked = {"difference": difference, "base": base, "icc": icc, "correlation": correlation, "kinds": kinds}
        found = answer(asked | {"rows": rows_per_kind}, run_dir, figure, variant)
        show(power_view(found), form, found)


if __name__ == "__main__":
    app(prog_name="bin/power")
