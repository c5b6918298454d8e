"""bin/bench-cluster: a sweep's driver under the load of many engines that hold no model."""

from typing import Annotated, Any

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-cluster",
    "bin/bench-cluster --json",
)


@app.command()
def bench_cluster(
    engines: Annotated[int, typer.Option(min=1, help="Engines that hold no model.")] = 64,
    variants: Annotated[int, typer.Option(min=1, help="Variants.")] = 2000,
    rows: Annotated[int, typer.Option(min=1, help="Responses of each variant, 200 tokens each.")] = 500,
    rate: Annotated[float, typer.Option(min=1, help="Responses that an engine gives a second; 139 is an H100's at 3B.")] = 139,
    killed: Annotated[float, typer.Option(min=0, max=1, help="Share of the engines that are killed on the way.")] = 0.05,
    judge: Annotated[bool, typer.Option(help="Grade what is offered to the judge by the rules; else not at all.")] = True,
    per_process: Annotated[int, typer.Option(min=1, help="Engines in one process (0.4 GB): where memory is short.")] = 1,
    as_json: cli.JsonOption = False,
) -> None:
    """Measure what a sweep's driver takes of many engines: rows a second into Parquet, memory, and every row once."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.benchmarks.cluster import Load
        from engine.benchmarks.cluster import bench_cluster as measure

        with cli.stdout_for_data():
            result = measure(Load(engines, variants, rows, rate, killed, judge, per_process))
        if as_json:
            cli.print_json(result)
            return
        for line in lines_of(result):
            print(line)


def lines_of(result: dict[str, Any]) -> list[str]:
    """The figures as sentences."""
    once = "every row once" if result["rows_once"] else f"NOT every row once ({result['duplicates']} twice)"
    lost = f"{result['lost_actors']} lost with {result['killed_processes']} killed processes"
    into_parquet = f"into Parquet alone {result['parquet_rows_per_second']}"
    sizes = ", ".join(str(result[f"driver_rss_gb_{name}"]) for name in ("start", "middle", "end"))
    ends = ", ".join(f"{name} {result[f'{name}_seconds']} s" for name in ("scores", "merge", "summary"))
    nodes = f"{result['saturates_at_nodes_of_8_h100']} nodes of 8"
    return [
        f"{result['rows_made']} rows of {result['engines']} engines, {lost}: {once}",
        f"rows_per_second {result['rows_per_second']} of {result['offered_rows_per_second']} offered",
        f"driver_rows_per_second {result['driver_rows_per_second']} (of its processor time), {into_parquet}",
        f"driver's memory at start, middle and end: {sizes} GiB; {ends}",
        f"the driver saturates at {result['saturates_at_h100_engines']} H100 engines, {nodes}",
        f"{result['hardware']}; no model; ray {result['ray']}; commit {result['commit']}",
    ]


if __name__ == "__main__":
    app(prog_name="bin/bench-cluster")
