"""bin/bench-audit: how often the audit is right."""

from typing import Annotated, Any

import typer

from engine.commands import cli

app = cli.Application(
    "bin/bench-audit",
    "bin/bench-audit --json",
)
TOTALS = (("n", 4), ("alone", 6), ("with_base", 10))


@app.command()
def bench_audit(
    per_case: Annotated[int, typer.Option(min=1, help="Random models of each kind of edit.")] = 20,
    untouched: Annotated[int, typer.Option(min=0, help="Random models that nobody edited, of all sorts together.")] = 1000,
    as_json: cli.JsonOption = False,
) -> None:
    """Audit random models with known edits, and models that nobody edited; print right verdicts and false alarms."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.benchmarks.audit import bench_audit as measure

        result = measure(per_case, untouched)
        if as_json:
            cli.print_json(result)
            return
        _print("edits: right verdicts", result["edits"])
        _print("nobody edited: false alarms", result["untouched"])
        print(f"models of {', '.join(result['families'])}, in bf16, fp16 and fp32")


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"{title:65} {'n':>4} {'alone':>6} {'with base':>10}")
    for row in rows:
        label = f"{row['group']}: {row['case']}" if "group" in row else row["case"]
        print(f"  {label:63} {row['n']:4} {row['alone']:6} {row['with_base']:10}")
    print(f"  {'all':63} {' '.join(f'{sum(row[key] for row in rows):{width}}' for key, width in TOTALS)}")


if __name__ == "__main__":
    app(prog_name="bin/bench-audit")
