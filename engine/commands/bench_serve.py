"""bin/bench-serve: bin/serve against bare vllm serve."""

from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-serve",
    "bin/bench-serve --json",
)


@app.command()
def bench_serve(
    variant: cli.VariantOption = "smollm2_135m_k1",
    model: cli.ModelOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    requests: Annotated[int, typer.Option(min=1, help="Test requests of a round.")] = 100,
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each response.")] = 64,
    concurrent: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each through every server.")] = 3,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Measure a folded variant behind bin/serve, plain and swappable, and bare vllm serve on its folder; print the ratios."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.configs.load import load_config

        config = load_config(variant, cli.variant_overrides(settings, None, None, model, pairs, columns=columns))
        from engine.benchmarks.serve import bench_serve as measure

        result = measure(config, requests, output_tokens, concurrent, rounds)
        if as_json:
            cli.print_json(result)
            return
        print(f"ratio_to_vllm {result['ratio_to_vllm']}, ratio_swappable {result['ratio_swappable']}")
        for name, found in result["output_tokens_per_second"].items():
            print(f"{name}: {found} output tokens/s")
        shape = f"{requests} requests of {output_tokens} tokens, {concurrent} at once"
        print(f"{shape}, {result['model']}; {result['hardware']}, vLLM {result['versions']['vllm']}")


if __name__ == "__main__":
    app(prog_name="bin/bench-serve")
