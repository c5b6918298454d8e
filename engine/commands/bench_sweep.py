"""bin/bench-sweep: a sweep over all layers against plain vLLM, hooks in transformers, and an engine a variant."""

from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-sweep",
    "bin/bench-sweep --json",
)


@app.command()
def bench_sweep(
    variant: cli.VariantOption = "smollm2_135m_k1",
    model: cli.ModelOption = None,
    layers: Annotated[str | None, typer.Option("--layers", help="Layers tried, such as 4-20,25; the default is all.")] = None,
    num_prompts: Annotated[int, typer.Option(help="Selection prompts.", min=4)] = 100,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Search all layers exhaustively and screened, and compare with the other ways to do it (about 10 minutes on 2 cores)."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.configs.load import load_config

        overrides = cli.variant_overrides(settings, None, None, model, None, sweep__layers=layers)
        config = load_config(variant, overrides)
        from engine.benchmarks.sweep import bench_sweep as measure

        result = measure(config, num_prompts)
        if as_json:
            cli.print_json(result)
            return
        for name, value in result.items():
            if isinstance(value, int | float) and name not in ("layers", "prompts", "max_tokens"):
                print(f"{name}: {value}")
        for name in ("exhaustive", "screened"):
            part = result[name]
            print(
                f"{name}: {part['seconds']} s, {part['generated_tokens']} tokens, winner {part['winner']} "
                f"{part['product']:.3f} [{part['product_low']:.3f}, {part['product_high']:.3f}]"
            )
        print(f"{result['layers']} layers x {result['prompts']} prompts x {result['max_tokens']} tokens, {result['model']}")
        print(f"{result['hardware']}; vllm {result['versions']['vllm']}; commit {result['commit']}")


if __name__ == "__main__":
    app(prog_name="bin/bench-sweep")
