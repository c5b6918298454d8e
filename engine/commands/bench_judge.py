"""bin/bench-judge: the fan-out against a mock endpoint, cached rows, memory; and with --local a judge in our own engine."""

from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-judge",
    "bin/bench-judge --json",
)


@app.command()
def bench_judge(
    calls: Annotated[int, typer.Option(min=200, help="Calls to the mock.")] = 12_000,
    slots: Annotated[int, typer.Option(min=1, help="Calls that the mock answers at once, 200 ms each.")] = 64,
    local: Annotated[bool, typer.Option("--local", help="Measure a classifier in our own engine instead.")] = False,
    model: Annotated[
        str, typer.Option(metavar="DIR", help="With --local: the classifier's model.")
    ] = "embedded:smollm2-135m-instruct",
    rows: Annotated[int, typer.Option(min=8, help="With --local: responses a round.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="With --local: rounds of one run each.")] = 3,
    as_json: cli.JsonOption = False,
) -> None:
    """Measure calls a second against a mock of known capacity, cached rows read again a second, and peak memory."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        if local:
            _local(model, rows, rounds, as_json=as_json)
            return
        from engine.benchmarks.judge import bench_judge as measure

        result = measure(calls, slots)
        if as_json:
            cli.print_json(result)
            return
        capacity = f"{result['calls_per_second']} calls/s of {result['capacity_per_second']:.0f}"
        print(f"{capacity}: capacity_share {result['capacity_share']}")
        print(f"with Ray's start {result['seconds_with_start']} s for {result['calls']} calls")
        print(f"cached_rows_per_second {result['cached_rows_per_second']} ({result['cached_rows']} rows, Parquet to Parquet)")
        few, many = result["peak_rss_mb_1000_rows"], result["peak_rss_mb_100000_rows"]
        print(f"peak memory: {few} MB for 1,000 rows, {many} MB for 100,000")
        print(f"{result['hardware']}; openai {result['openai']}, ray {result['ray']}; commit {result['commit']}")


def _local(model: str, rows: int, rounds: int, *, as_json: bool) -> None:
    from engine.benchmarks.classifier import bench_classifier

    result = bench_classifier(model, rows, rounds)
    if as_json:
        cli.print_json(result)
        return
    print(f"prefill_share {result['prefill_share']} ({', '.join(map(str, result['prefill_shares']))})")
    print(f"judged {result['judged_tokens_per_second']} prompt tokens/s, {rows} responses a round, {result['model']}")
    print(f"{result['hardware']}; vLLM {result['versions']['vllm']}; commit {result['commit']}")


if __name__ == "__main__":
    app(prog_name="bin/bench-judge")
