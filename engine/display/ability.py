"""How lm-eval results look: the cells of a table and the words beside it."""

from collections.abc import Mapping
from typing import Any

from engine.display.study_words import p_value
from engine.display.summary import number

Row = Mapping[str, Any]


HOW_TO_READ = "In brackets: the difference's 95 % interval. p: McNemar's exact test, each row by itself."


COLUMNS = ["variant", "task", "metric", "n", "base", "variant's", "difference", "paired standard error", "p"]


def bench_cells(result: Row) -> list[list[str]]:
    """A row a variant and task, each variant's mean after its tasks."""
    return [
        [
            row["variant"],
            row["task"],
            row["metric"],
            str(row["n"]),
            number(row["base"]),
            number(row["score"]),
            _difference(row),
            number(row["stderr"]),
            p_value(row["p"]),
        ]
        for row in sorted([*result["tasks"], *result["mean"]], key=lambda row: result["variants"].index(row["variant"]))
    ]


def unpaired_lines(result: Row) -> list[str]:
    """A line for each task that scores no single document (perplexity, corpus F1): lm-eval's figures, without a test."""
    compared = {row["task"] for row in result["tasks"]}
    lines = []
    for task in dict.fromkeys(task for found in result.get("aggregates", {}).values() for task in found if task not in compared):
        figures = "; ".join(
            f"{name} " + ", ".join(f"{metric.removesuffix(',none')} {value:.4g}" for metric, value in found[task].items())
            for name, found in result.get("aggregates", {}).items()
        )
        lines.append(f"{task} scores no single document, so nothing is paired: {figures}.")
    return lines


def _difference(row: Row) -> str:
    if row["low"] is None:
        return f"{row['difference']:+.3f}"
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
