"""How all figures look: matplotlib without a window, colours and markers told apart by all eyes and in print, one layer label."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.paths import replace_atomically

MARKERS = "osD^vPX*"
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]  # Okabe and Ito 2008
LINES = ["-", "--", "-.", ":"]
HEAT = "cividis"  # even in luminance: the same to all eyes, and in grey
LAYER_LABEL = "layer of the direction (resid_pre: the stream that enters block l)"
STREAM_LABEL = "layer (resid_pre: the stream that enters block l; the last is the last block's output)"


def pyplot() -> Any:
    """matplotlib's pyplot, on no display."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as found

    return found


def style(number: int) -> dict[str, str]:
    """Marker and colour of a figure's series by its number."""
    return {"marker": MARKERS[number % len(MARKERS)], "color": COLOURS[number % len(COLOURS)]}


def line(axes: Any, places: Sequence[float], values: Sequence[float | None], label: str, number: int, **more: Any) -> None:
    """A thin line with small markers; None leaves a gap."""
    numbers = [float("nan") if value is None else value for value in values]
    options = {"linewidth": 1.2, "markersize": 3.5, "linestyle": LINES[number % len(LINES)], **style(number), **more}
    axes.plot(list(places), numbers, label=label, **options)


def band(
    axes: Any, places: Sequence[float], rows: Sequence[Sequence[float | None]], number: int, label: str | None = None
) -> None:
    """The area between [low, high] of each place."""
    low, high = ([float("nan") if row[side] is None else row[side] for row in rows] for side in (0, 1))
    axes.fill_between(list(places), low, high, color=COLOURS[number % len(COLOURS)], alpha=0.18, linewidth=0, label=label)


def estimates(axes: Any, places: Sequence[float], rows: Sequence[Mapping[str, Any]], label: str, number: int) -> None:
    """A line through estimates' values with their intervals as an area."""
    line(axes, places, [row["value"] for row in rows], label, number)
    band(axes, places, [[row["low"], row["high"]] for row in rows], number)


def png(figure: Any) -> bytes:
    """A finished figure as PNG; the figure is closed."""
    return images(figure)["png"]


def images(figure: Any) -> dict[str, bytes]:
    """A finished figure by format: PNG for a screen, SVG for a paper. The same figure gives the same bytes; it is closed."""
    import matplotlib

    found = {}
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "figure"}):
        for form, more in (("png", {"dpi": 130}), ("svg", {"metadata": {"Date": None, "Creator": None}})):
            stream = io.BytesIO()
            figure.savefig(stream, format=form, **more)
            found[form] = stream.getvalue()
    pyplot().close(figure)
    return found


def save(figure: Any, path: Path) -> None:
    """A finished figure as a PNG file, atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_bytes(png(figure))


def legends(*grid: Any) -> None:
    """A light grid, and a legend where there is something to name."""
    for axes in grid:
        axes.grid(alpha=0.25, linewidth=0.5)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=8)
