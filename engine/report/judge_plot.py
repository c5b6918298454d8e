"""The rate against the judge: what each judge makes of the same labelled responses."""

from typing import Any

from engine.display.plotting import pyplot, style
from engine.runs.schemas import Row

FIGURES = {"declined": "declined", "compliance": "compliance", "product": "compliance x coherence"}


def rates_by_judge(comparison: Row) -> Any:
    """A panel for each figure: judges along the bottom, a mark with its interval for every labelled variant."""
    plt = pyplot()
    judges = list(comparison["ranking"])
    variants = list(dict.fromkeys(row["variant"] for ranked in comparison["ranking"].values() for row in ranked))
    figure, panels = plt.subplots(1, len(FIGURES), figsize=(3.6 * len(FIGURES), 4.2), sharey=True, layout="constrained")
    for axes, (name, title) in zip(panels, FIGURES.items(), strict=True):
        for number, variant in enumerate(variants):
            _marks(axes, comparison, judges, variant, name, number, (number - (len(variants) - 1) / 2) * 0.12)
        axes.set_xticks(range(len(judges)), judges, rotation=30, ha="right")
        axes.set_title(title)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(-0.5, len(judges) - 0.5)
    panels[0].set_ylabel(f"on the same {comparison['n']} labels, 95 % intervals")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncol=3, frameon=False)
    return figure


def _marks(axes: Any, comparison: Row, judges: list[str], variant: str, name: str, number: int, shift: float) -> None:
    known = [
        (place, row[name])
        for place, judge in enumerate(judges)
        for row in comparison["ranking"][judge]
        if row["variant"] == variant and row[name]["value"] is not None and row[name]["low"] is not None
    ]
    if not known:
        return
    values = [row["value"] for _, row in known]
    below = [max(row["value"] - row["low"], 0) for _, row in known]
    above = [max(row["high"] - row["value"], 0) for _, row in known]
    look = {"color": style(number)["color"], "marker": style(number)["marker"]}
    axes.errorbar([place + shift for place, _ in known], values, yerr=[below, above], linestyle="", label=variant, **look)
