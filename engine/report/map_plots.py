"""Figures of a map of refusals: the k x k table, and cosines between kinds at the map's layer and by layer."""

from typing import Any

from engine.display import plotting
from engine.display.map_tables import named
from engine.display.plotting import HEAT, LAYER_LABEL, legends, line
from engine.runs.schemas import Row


def removals(found: Row) -> Any:
    """Declined share of each kind's test requests (columns) with each row removed."""
    kinds = found["mapped"]
    shares = [[row["declined"][name]["value"] for name in kinds] for row in found["table"]]
    figure, axes = plotting.pyplot().subplots(figsize=(2.6 + 1.1 * len(kinds), 1.4 + 0.34 * len(shares)), layout="constrained")
    image = axes.imshow(shares, cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    _marks(axes, shares)
    axes.set_yticks(range(len(shares)), [named(row["removed"]) for row in found["table"]], fontsize=8)
    axes.set_xticks(range(len(kinds)), [named(name) for name in kinds], rotation=30, ha="right", fontsize=8)
    axes.set_ylabel("removed")
    axes.set_title(f"declined share, layer {found['layer']}", fontsize=10)
    figure.colorbar(image, ax=axes, label="declined")
    return figure


def cosines(found: Row) -> Any:
    """Noise-free cosines at the map's layer, and each kind's mean cosine to the others by layer; None with one kind alone."""
    kinds = found["mapped"]
    if len(kinds) < 2:
        return None
    figure, (left, right) = plotting.pyplot().subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    values = [[triple[0] for triple in row] for row in found["between"]["cosines"]]
    image = left.imshow(values, cmap=HEAT, vmin=-1, vmax=1)
    _marks(left, values)
    left.set_xticks(range(len(kinds)), [named(name) for name in kinds], rotation=30, ha="right", fontsize=8)
    left.set_yticks(range(len(kinds)), [named(name) for name in kinds], fontsize=8)
    left.set_title(f"layer {found['layer']}", fontsize=10)
    figure.colorbar(image, ax=left, label="cosine, noise-free")
    by_layer = found["by_layer"]
    for place, name in enumerate(kinds):
        means = [(sum(matrix[place]) - 1) / (len(kinds) - 1) for matrix in by_layer["cosines"]]
        line(right, by_layer["layers"], means, named(name), place)
    right.axvline(found["layer"], color="black", linewidth=0.8, linestyle=":")
    right.set_ylim(-1.05, 1.05)
    right.set_ylabel("mean noise-free cosine to the other kinds")
    right.set_xlabel(LAYER_LABEL)
    legends(right)
    return figure


def _marks(axes: Any, values: list[list[float]]) -> None:
    """Each cell's number, dark on light cells and light on dark ones."""
    low, high = axes.images[0].get_clim()
    for row, cells in enumerate(values):
        for column, value in enumerate(cells):
            colour = "black" if (value - low) / (high - low) > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
