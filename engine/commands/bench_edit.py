"""bin/bench-edit: an edit against cp -r."""

from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-edit",
    "bin/bench-edit --json",
)


@app.command()
def bench_edit(
    gigabytes: Annotated[float, typer.Option(min=1.2, help="Size of the random checkpoint.")] = 3.0,
    k: Annotated[int, typer.Option(min=1, help="Directions removed.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of one copy and one edit each.")] = 3,
    as_json: cli.JsonOption = False,
) -> None:
    """Measure the wall time of an edit (proof included) over that of cp -r, and its peak memory, on a warm page cache."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.benchmarks.edit import bench_edit as measure

        result = measure(gigabytes, k, rounds)
        if as_json:
            cli.print_json(result)
        else:
            print(f"cp -r {result['cp_seconds']} s, edit {result['edit_seconds']} s ({result['model']}, k = {k})")
            print(f"ratio_to_cp {result['ratio_to_cp']}, peak_rss_gb {result['peak_rss_gb']} ({result['hardware']})")


if __name__ == "__main__":
    app(prog_name="bin/bench-edit")
