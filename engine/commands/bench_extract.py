"""bin/bench-extract: batched extraction against one prompt at a time."""

from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-extract",
    "bin/bench-extract --json",
)


@app.command()
def bench_extract(
    variant: cli.VariantOption = "smollm2_135m_k1",
    model: cli.ModelOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of both ways.")] = 3,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Extract every layer's direction one prompt at a time and in batches; print the speedup and the lowest cosine."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.configs.load import load_config

        config = load_config(variant, cli.variant_overrides(settings, None, None, model, pairs, columns=columns))
        from engine.benchmarks.extract import bench_extract as measure

        result = measure(config, rounds)
        if as_json:
            cli.print_json(result)
            return
        print(f"speedup_over_one_by_one {result['speedup_over_one_by_one']}, min_cosine {result['min_cosine']:.8f}")
        print(f"one by one {result['one_by_one_seconds']} s, batched {result['batched_seconds']} s")
        print(
            f"{result['prompts']} prompts, {result['tokens']} tokens, {result['model']}, {result['dtype']}; {result['hardware']}"
        )


if __name__ == "__main__":
    app(prog_name="bin/bench-extract")
