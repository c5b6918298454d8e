"""Prints a sweep for people, on stdout, in the form of the study's tables."""

import math
import shutil
import sys
from pathlib import Path
from typing import Any

from engine.display.console import LOG_WIDTH
from engine.display.summary import print_judge

COLUMNS = ("variant", "Subspace", "k", "alpha", "Compliance", "Coherence", "Product", "on selection", "p (Holm)")
Row = dict[str, Any]


def print_sweep(summary: dict[str, Any], folder: Path) -> None:
    """The confirmed variants with their intervals, how the choice was made, and where everything is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else LOG_WIDTH
    console = Console(width=width, highlight=False)
    how = "all at full length" if summary["exhaustive"] else "screened and raced"
    console.print(
        f"{summary['variant']}: {summary['model']}, {summary['candidates']} single directions {how} on "
        f"{summary['selection_prompts']} selection prompts; rates on {summary['test_prompts']} test prompts that chose nothing",
        markup=False,
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("k", "alpha", "on selection", "p (Holm)") else "left")
    for row in summary["confirm"]:
        table.add_row(*cells_of(row))
    console.print(table)
    tested = sum(row.get("p") is not None for row in summary["confirm"])
    console.print(
        "In brackets: 95 % bootstrap intervals. p: exact McNemar against the base on the same prompts (complies fully and reads "
        f"well), Holm over {tested} variants.",
        markup=False,
    )
    print_judge(console, summary["judge"])
    console.print(time_line(summary["timing"]), markup=False)
    for failure in summary["failures"]:
        console.print(f"failed: {failure['variant']}: {failure['reason']}", markup=False)
    console.print(
        f"Winner: {summary['winner']['name']}; run it with bin/rollout --variant {folder / 'winner.toml'}", markup=False
    )


def time_line(timing: dict[str, Any]) -> str:
    """Where the time went, and what the sweep waited for."""
    return (
        f"{timing['generated_tokens']:,} tokens. Screen {timing.get('screen_seconds', 0):.0f} s, generation "
        f"{timing['generation_seconds']:.0f} s ({timing['swap_seconds']:.1f} s of it swaps), likelihoods "
        f"{timing.get('likelihood_seconds', 0):.0f} s; the judge worked {timing['judge_seconds']:.1f} s and was waited for "
        f"{timing['waited_for_judge_seconds']:.1f} s: bound by {timing['bound_by']}."
    )


def cells_of(row: Row) -> list[str]:
    """One row of the table."""
    if row.get("product") is None:
        return [row["variant"], str(row.get("reason")), *[""] * (len(COLUMNS) - 2)]
    base = row["kind"] == "base"
    estimates = [
        rf"{row[name]:.3f} \[{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
        for name in ("compliance", "coherence", "product")
    ]
    selection = row.get("selection_product")
    return [
        row["variant"],
        what(row),
        "-" if base else str(row["k"]),
        "-" if base else f"{row['alpha']:g}",
        *estimates,
        "-" if selection is None else f"{selection:.3f}",
        "-" if base else _p(row["p_holm"]),
    ]


def what(row: Row) -> str:
    """Where a variant's directions come from."""
    named = {"base": "no edit", "random": "control: random", "shuffled": "control: shuffled labels"}
    if row["kind"] in named:
        return named[row["kind"]]
    positions = {source.split("@")[0] for source in row["sources"]}
    layers = ", ".join(source.split("@")[1] for source in row["sources"])
    where = "" if positions == {"last"} else f" at {' '.join(sorted(positions))}"
    return f"layer{'s' if len(row['sources']) > 1 else ''} {layers}{where}"


def _p(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"
