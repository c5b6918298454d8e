"""bin/bench-cluster: a sweep's driver under the load of many engines that hold no model."""

from typing import Annotated

import typer

from engine import cli

app = typer.Typer(add_completion=False)


@app.command()
def bench_cluster(
    engines: Annotated[int, typer.Option(min=1, help="Ray actors, each a process of some 0.2 GB.")] = 64,
    variants: Annotated[int, typer.Option(min=1, help="Variants.")] = 2000,
    rows: Annotated[int, typer.Option(min=1, help="Responses of each variant, 200 tokens each.")] = 500,
    rate: Annotated[float, typer.Option(min=1, help="Responses that an engine gives a second; 139 is an H100's at 3B.")] = 139,
    killed: Annotated[float, typer.Option(min=0, max=1, help="Share of the engines that are killed on the way.")] = 0.05,
    judge: Annotated[bool, typer.Option(help="Grade what is offered to the judge by the rules; else not at all.")] = True,
    as_json: cli.JsonOption = False,
) -> None:
    """Measure what a sweep's driver takes of many engines: rows a second into Parquet, memory, and every row once."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.bench_cluster import Load
        from engine.bench_cluster import bench_cluster as measure

        result = measure(Load(engines, variants, rows, rate, killed, judge))
        if as_json:
            cli.print_json(result)
            return
        once = "every row once" if result["rows_once"] else f"NOT every row once ({result['duplicates']} twice)"
        print(f"{result['rows_made']} rows of {engines} engines, {result['lost_actors']} killed: {once}")
        print(f"rows_per_second {result['rows_per_second']} of {result['offered_rows_per_second']} offered")
        print(
            f"driver_rows_per_second {result['driver_rows_per_second']} (of one core), into Parquet {result['parquet_rows_per_second']}"
        )
        sizes = [result[f"driver_rss_gb_{name}"] for name in ("start", "middle", "end")]
        print(
            f"driver's memory at start, middle and end: {sizes} GiB; merge {result['merge_seconds']} s, {result['merge_peak_rss_gb']} GiB"
        )
        print(
            f"saturates at {result['saturates_at_h100_engines']} H100 engines, {result['saturates_at_nodes_of_8_h100']} nodes of 8"
        )
        print(f"{result['hardware']}; no model; ray {result['ray']}; commit {result['commit']}")


if __name__ == "__main__":
    app(prog_name="bin/bench-cluster")
