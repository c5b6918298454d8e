"""bin/bench-compare: six checkpoints in one engine against an engine each."""

from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-compare",
    "bin/bench-compare --json",
)


@app.command()
def bench_compare(
    variant: cli.VariantOption = "smollm2_135m_k1",
    variants: Annotated[int, typer.Option(help="Checkpoints beside the base.", min=1)] = 6,
    num_requests: Annotated[int, typer.Option(help="Requests that each answers.", min=1)] = 16,
    settings: cli.SetOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Compare checkpoints by bin/compare, end to end, and by an engine started on each (about 5 minutes on 2 cores)."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.benchmarks.compare import bench_compare as measure
        from engine.configs.load import load_config

        chosen = {"sampling.max_tokens": 32, **cli.parse_settings(settings)}
        result = measure(load_config(variant, chosen), variants, num_requests)
        if as_json:
            cli.print_json(result)
            return
        print(f"{result['speedup_over_restarts']} times faster than an engine each")
        print(f"one engine {result['one_engine_seconds']} s; an engine each {result['restarts_seconds']} s")
        print(f"{result['hardware']}; vllm {result['versions']['vllm']}; commit {result['commit']}")


if __name__ == "__main__":
    app(prog_name="bin/bench-compare")
