"""How lm-eval results look: base and variants, document by document."""

from engine.display.numbers import estimate, number, p_value
from engine.display.table import Row, Table, View

HOW_TO_READ = (
    "In brackets: the difference's 95 % interval. p: McNemar's exact test, each row by itself. Could see: the true "
    "difference that as many documents show in 80 of 100 samples (two-sided, 0.05). Documents count as independent."
)
MARGIN_NOTE = (
    "TOST p: two one-sided tests; below 0.05 the true difference is within {margin:g} points (--margin) and the verdict says "
    "equivalent. Lower, higher: the interval is on one side of 0. Cannot tell: neither loss nor its absence is shown."
)
COLUMNS = ["variant", "task", "metric", "n", "base", "variant's", "difference", "paired standard error", "p"]
COLUMNS += ["TOST p", "could see", "verdict"]


def bench_view(result: Row) -> View:
    """The paired table."""
    return [bench_table(result)]


def bench_table(result: Row) -> Table:
    """A row a variant and task, each variant's mean after its tasks."""
    options = result["options"]
    shots = "the task's own" if options["num_fewshot"] is None else options["num_fewshot"]
    asked = f"limit {options['limit'] or 'none'}, few-shot {shots}"
    rows = [
        [
            row["variant"],
            row["task"],
            row["metric"],
            str(row["n"]),
            number(row["base"]),
            number(row["score"]),
            estimate(row["difference"]),
            number(row["stderr"]),
            p_value(row["p"]),
            p_value(row["tost_p"]),
            number(row["detectable"]),
            row["verdict"],
        ]
        for row in sorted([*result["tasks"], *result["mean"]], key=lambda row: result["variants"].index(row["variant"]))
    ]
    margin = MARGIN_NOTE.format(margin=100 * options["margin"])
    notes = [f"lm-eval on the same documents ({asked}).", HOW_TO_READ, margin, *unpaired_lines(result)]
    return Table("Ability (lm-eval)", COLUMNS, rows, notes, keys=3)


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
