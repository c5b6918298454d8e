"""bin/bench-lmeval: one engine for all variants against lm-eval started per checkpoint."""

from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-lmeval",
    "bin/bench-lmeval --json",
)


@app.command()
def bench_lmeval(
    variant: cli.VariantOption = "smollm2_135m_k1",
    model: cli.ModelOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents of the shipped task.")] = 50,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Score the base and four variants both ways, end to end, and print the ratio of the seconds."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.benchmarks.lmeval import bench_lmeval as measure
        from engine.configs.load import load_config

        result = measure(load_config(variant, cli.variant_overrides(settings, None, None, model, pairs, columns=columns)), limit)
        if as_json:
            cli.print_json(result)
            return
        print(f"speedup_over_restarts {result['speedup_over_restarts']}")
        print(f"one engine {result['one_engine_seconds']} s; lm-eval per checkpoint {result['restarts_seconds']} s")
        print(
            f"base and {len(result['variants'])} variants, task everyday, limit {limit}, {result['model']}; {result['hardware']}"
        )


if __name__ == "__main__":
    app(prog_name="bin/bench-lmeval")
