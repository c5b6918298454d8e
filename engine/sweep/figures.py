"""A sweep's figures as PNG: product by layer with intervals, and the screen's three numbers by layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.configs.schema import SweepConfig
from engine.display import plotting
from engine.display.plotting import LAYER_LABEL
from engine.runs.schemas import Row

Points = list[tuple[int, Row]]


def draw_products(stages: Sequence[Row], path: Path) -> None:
    """Product by layer with 95 % intervals, a line for each position and alpha, on the selection prompts.

    A candidate stands with the last stage it reached; those of the race, which generates less, are hollow.
    """
    pyplot = plotting.pyplot()
    choosing = [row for row in stages if row["stage"].startswith(("race", "selection")) and row.get("product") is not None]
    last = {row["variant"]: row for row in choosing if row["kind"] == "single"}
    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    lines = _lines(list(last.values()))
    for number, (label, points) in enumerate(lines.items()):
        shift = 0.12 * (number - (len(lines) - 1) / 2)
        for full in (True, False):
            chosen = [(layer + shift, row) for layer, row in points if (row["stage"] == "selection") == full]
            _errorbars(axes, chosen, number, label if full else f"{label}, race only", full)
    base = next((row for row in stages if row["kind"] == "base" and row["stage"] == "selection"), None)
    if base is not None:
        axes.axhline(base["product"], color="black", linestyle="--", linewidth=1, label="base")
        axes.axhspan(base["product_low"], base["product_high"], color="black", alpha=0.1, linewidth=0)
    axes.set_xlabel(LAYER_LABEL)
    axes.set_ylabel("compliance x coherence, selection prompts")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8)
    plotting.save(figure, path)


def draw_screen(stages: Sequence[Row], config: SweepConfig, path: Path) -> None:
    """bypass, induce and KL by layer, with the filters' limits; nothing where no screen was run."""
    shown = ("base", "single")
    measured = [row for row in stages if row["stage"] == "screen" and row["kind"] in shown and row.get("kl") is not None]
    rows, base = ([row for row in measured if (row["kind"] == "base") == of_base] for of_base in (False, True))
    if not rows:
        return
    pyplot = plotting.pyplot()
    figure, grid = pyplot.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained")
    named = {"bypass": "bypass (log-odds)", "induce": "induce (log-odds)", "kl": "KL (nats, log scale)"}
    for axes, (name, label) in zip(grid, named.items(), strict=True):
        for number, (series, points) in enumerate(_lines(rows).items()):
            layers, values = [layer for layer, _ in points], [row[name] for _, row in points]
            axes.plot(layers, values, label=series, linewidth=1, markersize=4, **plotting.style(number))
        if base and name != "kl":  # the base's KL from itself is 0
            axes.axhline(base[0][name], color="black", linestyle=":", linewidth=1, label="base")
        axes.set_ylabel(label)
    for axes, limit in ((grid[1], config.min_induce), (grid[2], config.max_kl)):
        axes.axhline(limit, color="black", linestyle="--", linewidth=1, label="limit")
    grid[2].set_yscale("log")
    grid[2].set_xlabel(LAYER_LABEL)
    grid[1].legend(frameon=False, fontsize=8)
    plotting.save(figure, path)


def draw_front(stages: Sequence[Row], on_front: Sequence[Row], path: Path) -> None:
    """Coherence against compliance on the selection prompts with 95 % intervals; the front's variants joined and named."""
    rows = [row for row in stages if row["stage"] == "selection" and row.get("compliance") is not None]
    pyplot = plotting.pyplot()
    figure, axes = pyplot.subplots(figsize=(6.4, 4.6), layout="constrained")
    names = {point["variant"] for point in on_front} | {"base"}
    for row in rows:
        number = 2 if row["kind"] == "base" else 0 if row["variant"] in names else 1
        _cross(axes, row, plotting.style(number))
        if row["variant"] in names:
            place = {"textcoords": "offset points", "xytext": (5, 5), "fontsize": 8}
            axes.annotate(row["variant"], (row["compliance"], row["coherence"]), **place)
    line = {"color": plotting.style(0)["color"], "linewidth": 1}
    axes.plot([point["compliance"] for point in on_front], [point["coherence"] for point in on_front], **line)
    axes.set_xlabel("compliance, selection prompts")
    axes.set_ylabel("coherence, selection prompts")
    plotting.save(figure, path)


def _cross(axes: Any, row: Row, style: Mapping[str, Any]) -> None:
    """A variant's two figures, each with its interval."""
    figures = ("compliance", "coherence")
    bars = [[[length] for length in _arms(row, name)] for name in figures]
    plain = {**style, "linestyle": "none", "linewidth": 0.8, "markersize": 4}
    axes.errorbar([row["compliance"]], [row["coherence"]], xerr=bars[0], yerr=bars[1], **plain)


def _arms(row: Row, name: str) -> tuple[float, float]:
    """How far an interval reaches below and above its figure: never less than nothing, whatever the last digit says."""
    return max(row[name] - row[f"{name}_low"], 0.0), max(row[f"{name}_high"] - row[name], 0.0)


def _lines(rows: Sequence[Row]) -> dict[str, Points]:
    """Rows by position and alpha, each in order of layers."""
    lines: dict[str, Points] = {}
    for row in sorted(rows, key=lambda row: (row["sources"][0].partition("@")[0], row["alpha"])):
        position, _, layer = row["sources"][0].partition("@")
        lines.setdefault(f"{position}, alpha {row['alpha']:g}", []).append((int(layer), row))
    return {label: sorted(points, key=lambda point: point[0]) for label, points in lines.items()}


def _errorbars(axes: Any, points: Sequence[tuple[float, Row]], number: int, label: str, full: bool) -> None:
    if not points:
        return
    below, above = zip(*(_arms(row, "product") for _, row in points), strict=True)
    fill = {} if full else {"markerfacecolor": "white", "linestyle": "none"}
    layers, middle = [layer for layer, _ in points], [row["product"] for _, row in points]
    style = {"linewidth": 1, "capsize": 2, "markersize": 4, **plotting.style(number), **fill}
    axes.errorbar(layers, middle, yerr=[below, above], label=label, **style)
