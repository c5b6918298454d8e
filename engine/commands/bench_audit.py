"""bin/bench-audit: how often the audit is right."""

from typing import Annotated

import typer

from engine.commands import cli

app = typer.Typer(add_completion=False)


@app.command()
def bench_audit(
    per_case: Annotated[int, typer.Option(min=1, help="Random models of each kind.")] = 20,
    as_json: cli.JsonOption = False,
) -> None:
    """Audit random models with known edits, untouched ones and fine-tuned ones; print how often the verdict is right."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.benchmarks.audit import bench_audit as measure

        result = measure(per_case)
        if as_json:
            cli.print_json(result)
            return
        print(f"{'case':40} {'n':>4} {'alone':>6} {'with base':>10}   (right verdicts)")
        for row in result["cases"]:
            print(f"{row['case']:40} {row['n']:4} {row['alone']:6} {row['with_base']:10}")
        print(f"{result['total']} models of {', '.join(result['families'])}, in bf16, fp16 and fp32")


if __name__ == "__main__":
    app(prog_name="bin/bench-audit")
