"""bin/bench-overhead: what our Python costs beside vLLM's, without a model."""

from typing import Annotated, Any

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-overhead",
    "bin/bench-overhead --json",
)


@app.command()
def bench_overhead(
    variant: cli.VariantOption = "smollm2_135m_k1",
    model: cli.ModelOption = None,
    num_requests: Annotated[int, typer.Option(help="Requests a round.", min=1)] = 500,
    num_tokens: Annotated[int, typer.Option(help="New tokens a response.", min=1)] = 90,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of one run each.")] = 5,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Time a rollout to Parquet, plain LLM.generate and the likelihood pass over an engine core that answers at once.

    What is left is Python of this process: vLLM's own, and what we add to it. A GPU waits for the serial part.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.configs.load import load_config

        flags: dict[str, Any] = {"data__num_requests": num_requests, "data__num_answerable": 0}
        config = load_config(variant, cli.variant_overrides(settings, None, None, model, None, **flags))
        from engine.benchmarks.overhead import bench_overhead as measure

        result = measure(config, num_tokens=num_tokens, rounds=rounds)
        if as_json:
            cli.print_json(result)
        else:
            size = f"{result['prompts']} prompts x {result['max_tokens']} tokens"
            print(f"serial_ms_per_500_rows {result['serial_ms_per_500_rows']} ({size}, {result['hardware']})")
            print(f"LLM.generate           {result['plain_us_per_token']} us a token of vLLM's own Python")
            print(f"likelihoods            {result['likelihood_us_per_token']} us a token")


if __name__ == "__main__":
    app(prog_name="bin/bench-overhead")
