"""bin/bench-rollout: our rollout to Parquet against plain vLLM."""

from typing import Annotated, Any

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-rollout",
    "bin/bench-rollout --json",
)


@app.command()
def bench_rollout(
    variant: cli.VariantOption = "smollm2_135m_k1",
    model: cli.ModelOption = None,
    num_requests: Annotated[int | None, typer.Option(help="How many test requests; the default is all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of one run each, in alternating order.")] = 3,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Measure output tokens/s of our rollout to Parquet and of plain LLM.generate on one engine; print the ratio."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.configs.load import load_config

        flags: dict[str, Any] = {"data__num_requests": num_requests, "data__num_answerable": 0}
        config = load_config(variant, cli.variant_overrides(settings, None, None, model, None, **flags))
        from engine.benchmarks.rollout import bench_rollout as measure

        result = measure(config, rounds)
        if as_json:
            cli.print_json(result)
        else:
            machine = f"{result['hardware']}, vLLM {result['versions']['vllm']}"
            print(f"ours  {result['ours_tokens_per_second']} output tokens/s")
            print(f"vLLM  {result['vllm_tokens_per_second']} output tokens/s")
            print(f"ratio_to_vllm {result['ratio_to_vllm']:.3f} ({result['model']}, {result['prompts']} prompts, {machine})")


if __name__ == "__main__":
    app(prog_name="bin/bench-rollout")
