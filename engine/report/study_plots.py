"""Figures of the other studies. Each takes one study's JSON and gives a finished matplotlib figure."""

from collections.abc import Sequence
from typing import Any

from engine.display import plotting
from engine.display.plotting import HEAT, LAYER_LABEL, STREAM_LABEL, band, estimates, legends, line
from engine.runs.schemas import Row


def reading(found: Row) -> Any:
    """AUROC of the directions at both positions: for what is asked, and for what is done."""
    figure, grid = plotting.pyplot().subplots(3, 1, figsize=(8, 8.4), sharex=True, layout="constrained")
    titles = {"asked": "undoable against answerable requests", "done": "undoable requests: declined against answered"}
    for axes, (what, title) in zip(grid, titles.items(), strict=False):
        for number, (position, parts) in enumerate(found["positions"].items()):
            if what in parts:
                estimates(axes, range(len(parts[what]["auroc"])), parts[what]["auroc"], f"direction at {position}", number)
                for colour, null in ((7, "shuffled"), (5, "random")):
                    label = f"{null} directions, 95 %" if number == 0 else None
                    band(axes, range(len(parts[what]["null"])), [row[null] for row in parts[what]["null"]], colour, label)
        axes.set_ylabel("AUROC")
        axes.set_title(title, fontsize=10)
    line(grid[2], range(len(found["cosine"])), found["cosine"], "last_instruction and last", 2)
    grid[2].set_ylabel("cosine between the two")
    grid[2].set_xlabel(LAYER_LABEL)
    legends(*grid)
    return figure


def alpha_curves(found: Row) -> Any:
    """Declined share and coherence over alpha, for the direction and its controls; and over what is added."""
    rows = found["rows"]
    series = list(dict.fromkeys((row["mode"], row["site"], row["subject"]) for row in rows if row["mode"] != "none"))
    modes = [mode for mode in ("ablate", "add") if any(key[0] == mode for key in series)]
    figure, grid = plotting.pyplot().subplots(2, len(modes), figsize=(5.2 * len(modes), 6.4), squeeze=False, layout="constrained")
    for column, mode in enumerate(modes):
        side = "declined" if mode == "ablate" else "answered"
        base = next(row for row in rows if row["mode"] == "none" and row["requests"] == side)
        groups = list(dict.fromkeys((key[1], key[2].rstrip("0123456789")) for key in series if key[0] == mode))
        for number, (site, kind) in enumerate(groups):
            drawn = [key for key in series if key[:2] == (mode, site) and key[2].rstrip("0123456789") == kind]
            curves = [[base, *(row for row in rows if (row["mode"], row["site"], row["subject"]) == key)] for key in drawn]
            curves = [sorted(points, key=lambda row: row["alpha"]) for points in curves]
            several = f"{len(drawn)} {kind}" if len(drawn) > 1 else kind
            label = f"{several}, {site}" if mode == "ablate" else several
            _dose(grid[0][column], curves, "declined", label, number)
            _dose(grid[1][column], curves, "coherence", label, number)
        grid[0][column].set_title("taken out" if mode == "ablate" else f"added at layer {found['added_at']}", fontsize=10)
        grid[1][column].set_xlabel("alpha (share removed)" if mode == "ablate" else "multiples of the mean difference")
        for axes, name in ((grid[0][column], f"declined, of {side} prompts"), (grid[1][column], "coherence")):
            axes.set_ylabel(name)
            axes.set_ylim(-0.03, 1.03)
    legends(*grid[0])
    return figure


def _dose(axes: Any, curves: Sequence[Sequence[Row]], name: str, label: str, number: int) -> None:
    """A figure over alpha: one curve with its interval; of several draws their mean, and the band from lowest to highest."""
    places = [row["alpha"] for row in curves[0]]
    if len(curves) == 1:
        estimates(axes, places, [row[name] for row in curves[0]], label, number)
        return
    values = [[points[place][name]["value"] for points in curves] for place in range(len(places))]
    line(axes, places, [sum(given) / len(given) for given in values], label, number)
    band(axes, places, [[min(given), max(given)] for given in values], number)


def regrowth(found: Row) -> Any:
    """A plot of what separates after each round, and of how much longer the rest of the mean difference became."""
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6.4), sharex=True, layout="constrained")
    for number, row in enumerate(found["rounds"]):
        label = "base" if not row["k"] else f"{row['k']} removed"
        layers = range(len(row["cohens_d"]))
        estimates(top, layers, row["cohens_d"], label, number)
        if row["k"]:
            estimates(bottom, layers, row["growth"], label, number)
    for number, (name, control) in zip((7, 5), found["controls"].items(), strict=True):
        label = f"{control['k']} {name} removed"
        line(top, range(len(control["cohens_d"])), [row["value"] for row in control["cohens_d"]], label, number)
        estimates(bottom, range(len(control["growth"])), control["growth"], label, number)
    bottom.axhline(1, color="black", linewidth=0.8, linestyle=":")
    top.set_ylabel("Cohen's d, held-out pairs")
    bottom.set_ylabel("length orthogonal to the cut,\nover the base's")
    bottom.set_xlabel(STREAM_LABEL)
    legends(top, bottom)
    return figure


def transfer(found: Row) -> Any:
    """Cosine between two models' directions by layer, and how each separates on the other model."""
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 5.6), sharex=True, layout="constrained")
    line(top, range(len(found["cosine"])), found["cosine"], "the run's and the other model's own", 0)
    top.axhspan(-found["random"][1], found["random"][1], color=plotting.COLOURS[7], alpha=0.3, label="random, 97.5 % of |cosine|")
    for number, (name, label) in enumerate((("run", "transferred"), ("own", "the other model's own"))):
        estimates(bottom, range(len(found[name]["auroc"])), found[name]["auroc"], label, number)
    top.set_ylabel("cosine")
    bottom.set_ylabel("AUROC on the other model")
    bottom.set_xlabel(LAYER_LABEL)
    legends(top, bottom)
    return figure


def adapter(found: Row) -> Any:
    """|cosine| of every adapted tensor's leading write to every layer's direction."""
    rows = [[value or 0.0 for value in row["cosine"]] for row in found["rows"]]
    figure, axes = plotting.pyplot().subplots(figsize=(8, 1.6 + 0.14 * len(rows)), layout="constrained")
    image = axes.imshow(rows, cmap=HEAT, aspect="auto", vmin=0)
    axes.set_yticks(
        range(len(rows)), [row["tensor"].replace("model.layers.", "").removesuffix(".weight") for row in found["rows"]]
    )
    axes.tick_params(axis="y", labelsize=6)
    axes.set_xlabel(LAYER_LABEL)
    axes.set_title(f"random directions: 97.5 % below {found['random'][1]:.3f}", fontsize=9)
    figure.colorbar(image, ax=axes, label="|cosine|")
    return figure


def divergence(found: Row) -> Any:
    """Mean KL by place in the response, and declined share over the tokens read."""
    figure, (left, right) = plotting.pyplot().subplots(1, 2, figsize=(11, 4), layout="constrained")
    for number, row in enumerate(found["kl"]):
        kept = [place for place, count in enumerate(row["n_by_place"]) if count >= 10]
        line(left, [place + 1 for place in kept], [row["by_place"][place] for place in kept], f"{row['kind']} requests", number)
    left.set_xlabel("token of the base's response")
    left.set_ylabel("KL(base || variant), nats")
    for number, row in enumerate(found["by_tokens"]):
        points = row["points"]
        values = [point["declined"] for point in points]
        estimates(right, [point["tokens"] for point in points], values, f"{row['variant']}, {row['kind']}", number)
    right.set_xscale("log", base=2)
    right.set_xlabel("tokens of the response that are read")
    right.set_ylabel("declined (rules on the text)")
    right.set_ylim(-0.03, 1.03)
    legends(left, right)
    return figure
