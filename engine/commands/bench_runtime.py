"""bin/bench-runtime: interventions at run time against plain vLLM, swaps and hooks."""

from typing import Annotated, Any

import typer

from engine.commands import cli
from engine.errors import EngineError

app = cli.Application(
    "bin/bench-runtime",
    "bin/bench-runtime --json",
)
SITES = ("inputs", "writes")


@app.command()
def bench_runtime(
    variant: cli.VariantOption = "smollm2_135m_k1",
    model: cli.ModelOption = None,
    num_requests: Annotated[int, typer.Option(min=1, help="How many prompts.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in which the ways take turns in going first.")] = 3,
    site: Annotated[str, typer.Option(help="inputs (of every block, as the study) or writes (of attention and MLP).")] = "inputs",
    beside: Annotated[bool, typer.Option(help="Measure hot swaps, adapters and transformers hooks beside.")] = True,
    settings: cli.SetOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Measure generation with one variant, 64 mixed and none at run time against plain LLM.generate, swaps and hooks."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        if site not in SITES:
            raise EngineError(f"--site takes {' or '.join(SITES)}; found '{site}'.")
        from engine.configs.load import load_config

        flags: dict[str, Any] = {"data__num_requests": num_requests, "data__num_answerable": 0}
        config = load_config(variant, cli.variant_overrides(settings, None, None, model, None, **flags))
        from engine.benchmarks.runtime import bench_runtime as measure

        result = measure(config, rounds, site, beside=beside)
        if as_json:
            cli.print_json(result)
        else:
            print("\n".join(lines(result)))


def lines(result: dict[str, Any]) -> list[str]:
    """The figures as text."""
    told = [f"{way:<12} {rates} output tokens/s" for way, rates in result["tokens_per_second"].items()]
    for name in ("swaps_tokens_per_second", "adapters_tokens_per_second", "hooks_tokens_per_second"):
        told += [f"{name.partition('_')[0]:<12} {result[name]} output tokens/s"] if name in result else []
    names = ("ratio_to_plain", "ratio_to_plain_64_mixed", "ratio_slot_zero", "speedup_over_hooks")
    told += [f"{name} {result[name]:.3f}" for name in names if name in result]
    told += [f"by CPU time: {', '.join(f'{name} {value:.3f}' for name, value in result['cpu_time'].items())}"]
    shares = result.get("operator_share", {})
    told += [f"in the operator: {', '.join(f'{way} {share:.1%}' for way, share in shares.items())}"] if shares else []
    told += [
        f"kernel, H {row['hidden_size']}, {row['tokens']} tokens, {row['mix']}: {row['microseconds']} us, "
        f"{row['gigabytes_per_second']} GB/s (a copy of the same size {row['copy_microseconds']} us)"
        for row in result.get("kernel", [])
    ]
    mode = "eager" if result["eager"] else "compiled"
    versions = f"{result['hardware']}, vLLM {result['versions']['vllm']}"
    return [*told, f"({result['model']}, {result['dtype']}, {mode}, {result['prompts']} prompts, {versions})"]


if __name__ == "__main__":
    app(prog_name="bin/bench-runtime")
