"""Prints a summary for people, on stdout."""

import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("declined", "compliance", "coherence", "product")
COUNTS = {"cut": "truncated", "empty": "empty", "unscored": "missing"}
LOG_WIDTH = 170


def print_summary(summary: dict[str, Any]) -> None:
    """A table of every variant and kind, with the judge's name and the published figures where there are any."""
    from rich.console import Console

    judge = summary["judge"]
    published = any(figure["published"] for figure in summary["figures"])
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else LOG_WIDTH
    console = Console(width=width, highlight=False)
    console.print(
        f"{summary['variant']}: {summary['model']}, layers {summary['layers']}, alpha {summary['alpha']:g}",
        markup=False,
    )
    console.print(_table(summary["figures"], published))
    console.print(
        "In brackets: 95 % intervals (Wilson for shares, bootstrap for means). cut: stopped at the token limit.",
        markup=False,
    )
    console.print(f"Judge: {judge['name']} = {judge['notice']}; rubric {judge['rubric_hash']}.", markup=False)
    if published and summary["prompts"].startswith("embedded:"):
        console.print("Published: the study's prompts and judge. This run used the embedded harmless requests; do not compare.")


def _table(figures: list[dict[str, Any]], published: bool) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("variant", "requests", "n", *COLUMNS, *(["published"] if published else []), *COUNTS):
        table.add_column(name, justify="right" if name in ("n", *COUNTS) else "left")
    for figure in figures:
        cells = [figure["variant"], figure["kind"], str(figure["n"]), *(_estimate(figure[name]) for name in COLUMNS)]
        cells += [_published(figure["published"])] if published else []
        table.add_row(*cells, *(str(figure[name]) for name in COUNTS.values()))
    return table


def _estimate(estimate: dict[str, float | None]) -> str:
    if estimate["value"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return rf"{estimate['value']:.3f} \[{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _published(published: dict[str, Any] | None) -> str:
    if published is None:
        return "-"
    figures = [f"{published[name]:.3f}" if published[name] is not None else "?" for name in ("compliance", "coherence")]
    return " / ".join(figures) + (f" ({published['note']})" if published["note"] else "")
