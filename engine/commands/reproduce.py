"""bin/reproduce: a published table again, by one command, where the weights are at hand."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/reproduce   # which tables there are",
    "bin/reproduce smollm2 --runs /data/runs",
)


@app.command()
def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="A table in configs/published/, or a TOML; without it: which there are.")
    ] = None,
    model: cli.ModelOption = None,
    judge: cli.JudgeOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    requests: cli.RequestsOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    runs: Annotated[Path, typer.Option(help="Where each figure's run goes, in a folder of its own.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Write the result here as JSON too.")] = None,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Run what a published table was made of, and print its figures beside ours: inside our interval, or outside.

    Finished runs are not made again. Without a name it lists the tables, and which of their models are at hand.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.compare.published import read_table, table_names
        from engine.compare.reproduce import at_hand
        from engine.compare.reproduce import reproduce as run
        from engine.display.console import show
        from engine.display.reproduced_tables import reproduced_view, tables_view

        if name is None:
            tables = {one: at_hand(one) for one in table_names()}
            show(tables_view(tables, {one: read_table(one).title for one in tables}), form, tables)
            return
        given = {"data__test_requests": cli.existing_or_embedded(requests)}
        overrides = cli.variant_overrides(settings, None, None, model, pairs, columns=columns, judge=judge, **given)
        found = run(name, runs, overrides, out=out)
        show(reproduced_view(found), form, found)


if __name__ == "__main__":
    app(prog_name="bin/reproduce")
