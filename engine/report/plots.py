"""The figures of a report. Each takes one study's JSON and gives a finished matplotlib figure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine import plotting
from engine.plotting import HEAT, LAYER_LABEL, STREAM_LABEL, band, line, triples
from engine.report.collect import RunData

Row = dict[str, Any]


MOST_KINDS = 24


@dataclass(frozen=True)
class Plot:
    """A figure's file name, its title and caption on the page, and what draws it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Row], Any]


def plots_of(run: RunData) -> list[tuple[Plot, bytes]]:
    """Every figure that this run's studies allow, drawn."""
    found = []
    for study, plots in PLOTS.items():
        data = run.studies.get(study, {})
        for plot in plots if data else ():
            figure = plot.draw(data)
            if figure is not None:
                found.append((plot, plotting.png(figure)))
    return found


def separability(geometry: Row) -> Any:
    """Cohen's d and AUROC by layer on held-out pairs, with the null bands and the training figure."""
    own = geometry["positions"][geometry["position"]]
    mean = own["estimators"]["mean_difference"]
    layers = range(len(mean["cohens_d"]))
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6.4), sharex=True, layout="constrained")
    for axes, key in ((top, "cohens_d"), (bottom, "auroc")):
        triples(axes, layers, mean[key], "direction, held-out pairs", 0)
        for number, null in ((7, "shuffled"), (5, "random")):
            band(axes, layers, [row[null][key] for row in own["null"]], number, f"{null} directions, 95 %")
    line(top, layers, mean["train_cohens_d"], "direction, its own pairs", 1)
    probe = geometry["probe"]["held_out"]
    line(bottom, layers, [row[0] for row in probe], "logistic probe: accuracy, held out", 2)
    top.set_ylabel("Cohen's d")
    bottom.set_ylabel("AUROC (accuracy for the probe)")
    bottom.set_ylim(min(0.3, *bottom.get_ylim()), 1.02)
    bottom.set_xlabel(LAYER_LABEL)
    _legends(top, bottom)
    return figure


def estimators(geometry: Row) -> Any:
    """Each estimator's cosine to the mean difference, and its d on held-out pairs."""
    named = dict(geometry["positions"][geometry["position"]]["estimators"])
    if geometry.get("unrelated"):
        named["against unrelated prompts"] = geometry["unrelated"] | {
            "cosine_to_mean_difference": geometry["unrelated"]["cosine"]
        }
    if len(named) < 2:
        return None
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for number, (name, found) in enumerate(named.items()):
        layers = range(len(found["cohens_d"]))
        if name != "mean_difference":
            line(top, layers, found["cosine_to_mean_difference"], name, number)
        line(bottom, layers, [row[0] for row in found["cohens_d"]], name, number)
    top.set_ylabel("cosine to the mean difference")
    bottom.set_ylabel("Cohen's d, held-out pairs")
    bottom.set_xlabel(LAYER_LABEL)
    _legends(top, bottom)
    return figure


def positions(geometry: Row) -> Any:
    """AUROC and cosine to the run's own direction, position by position."""
    if len(geometry["positions"]) < 2:
        return None
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for number, (name, found) in enumerate(geometry["positions"].items()):
        mean = found["estimators"]["mean_difference"]
        layers = range(len(mean["auroc"]))
        line(top, layers, [row[0] for row in mean["cohens_d"]], name, number)
        if name != geometry["position"]:
            line(bottom, layers, found["cosine_to_main"], name, number)
    top.set_ylabel("Cohen's d, held-out pairs")
    bottom.set_ylabel(f"cosine to the direction at {geometry['position']}")
    bottom.set_xlabel(LAYER_LABEL)
    _legends(top, bottom)
    return figure


def heatmap(geometry: Row) -> Any:
    """Cosines between the layers' directions: the labels' own, and shuffled labels' beside them."""
    pyplot = plotting.pyplot()
    figure, grid = pyplot.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for axes, (name, title) in zip(
        grid, (("true", "declined against answered"), ("shuffled", "shuffled labels (no difference)")), strict=True
    ):
        rows = [[float("nan") if value is None else value for value in row[1:]] for row in geometry["cosines"][name][1:]]
        image = axes.imshow(rows, cmap=HEAT, vmin=-0.25, vmax=1, origin="lower", extent=_extent(len(rows)))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("layer (resid_pre)")
    grid[0].set_ylabel("layer (resid_pre)")
    figure.colorbar(image, ax=grid, label="cosine", shrink=0.85)
    return figure


def stability(geometry: Row) -> Any:
    """Split-half and bootstrap cosine by layer, and the cosine over the number of pairs at the run's own layers."""
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6.6), layout="constrained")
    layers = [int(layer) for layer in geometry["stability"]]
    rows = list(geometry["stability"].values())
    triples(top, layers, [row["split_half"] for row in rows], "two halves of the pairs", 0)
    triples(top, layers, [row["bootstrap"] for row in rows], "a resample and all pairs", 2)
    band(top, layers, [row["null"][1:] for row in rows], 7, "two halves, sides swapped at random, 95 %")
    top.set_xlabel(LAYER_LABEL)
    top.set_ylabel("cosine")
    for number, (layer, points) in enumerate(geometry["curves"].items()):
        counts = [point["pairs"] for point in points]
        triples(bottom, counts, [point["split"] for point in points], f"layer {layer}: two disjoint draws", 2 * number)
        line(
            bottom,
            counts,
            [point["expected_to_true"] for point in points],
            f"layer {layer}: expected, to the true one",
            2 * number + 1,
        )
    bottom.axhline(0.95, color="black", linestyle=":", linewidth=1)
    bottom.set_xscale("log", base=2)
    bottom.set_xlabel("pairs")
    bottom.set_ylabel("cosine")
    _legends(top, bottom)
    return figure


def spectrum(geometry: Row) -> Any:
    """The spectrum of the stacked unit directions: as it is, corrected for noise, and of shuffled labels."""
    figure, axes = plotting.pyplot().subplots(figsize=(8, 3.8), layout="constrained")
    places = range(1, len(geometry["unit_spectrum"]) + 1)
    line(axes, places, geometry["unit_spectrum"], "as extracted", 1)
    triples(axes, places, geometry["shuffled_spectrum"], "shuffled labels, as extracted", 7)
    found = geometry["structure"]
    if found is not None:
        rows = found["spectrum"]
        triples(axes, range(1, len(rows) + 1), rows, "noise taken out", 0)
    axes.set_xlim(0.5, min(len(places), 12) + 0.5)
    axes.set_xlabel("component of the stacked unit directions")
    axes.set_ylabel("share of the squared length")
    _legends(axes)
    return figure


def padded(geometry: Row) -> Any:
    """Cosine between exact directions and those of naive padded batches."""
    if not geometry.get("padded"):
        return None
    figure, axes = plotting.pyplot().subplots(figsize=(8, 3.2), layout="constrained")
    cosines = geometry["padded"]["cosine"]
    line(axes, range(len(cosines)), cosines, "naive padded batch against exact", 1)
    axes.set_ylim(min(0.0, *(value for value in cosines if value is not None)) - 0.02, 1.02)
    axes.set_xlabel(LAYER_LABEL)
    axes.set_ylabel("cosine")
    _legends(axes)
    return figure


def kinds(geometry: Row) -> Any:
    """Each kind's own direction against the direction of all other kinds, beside what the noise would allow."""
    layer, found = next(iter(geometry["kinds"].items()), (None, None))
    if not found or len(found) < 2:
        return None
    named = sorted(found.items(), key=lambda item: item[1]["cosine"] - item[1]["ceiling"])[:MOST_KINDS]
    figure, axes = plotting.pyplot().subplots(figsize=(8, 1.2 + 0.19 * len(named)), layout="constrained")
    places = range(len(named))
    axes.plot([row["cosine"] for _, row in named], places, "o", color=plotting.COLOURS[0], markersize=4, label="cosine")
    ceilings = [row["ceiling"] for _, row in named]
    axes.plot(ceilings, places, "|", color=plotting.COLOURS[1], markersize=9, label="if it were the others' direction")
    axes.set_yticks(list(places), [f"{kind or 'no kind'} ({row['pairs']})" for kind, row in named], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"cosine to the direction of all other kinds, layer {layer}")
    axes.axvline(0, color="black", linewidth=0.8)
    _legends(axes)
    return figure


def reading(found: Row) -> Any:
    """AUROC of the directions at both positions: for what is asked, and for what is done."""
    figure, grid = plotting.pyplot().subplots(3, 1, figsize=(8, 8.4), sharex=True, layout="constrained")
    titles = {"asked": "undoable against answerable requests", "done": "undoable requests: declined against answered"}
    for axes, (what, title) in zip(grid, titles.items(), strict=False):
        for number, (position, parts) in enumerate(found["positions"].items()):
            if what in parts:
                triples(axes, range(len(parts[what]["auroc"])), parts[what]["auroc"], f"direction at {position}", number)
                band(axes, range(len(parts[what]["null"])), parts[what]["null"], 7)
        axes.set_ylabel("AUROC")
        axes.set_title(title, fontsize=10)
    line(grid[2], range(len(found["cosine"])), found["cosine"], "last_instruction and last", 2)
    grid[2].set_ylabel("cosine between the two")
    grid[2].set_xlabel(LAYER_LABEL)
    _legends(*grid)
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
        for number, key in enumerate(key for key in series if key[0] == mode):
            points = [base, *(row for row in rows if (row["mode"], row["site"], row["subject"]) == key)]
            points.sort(key=lambda row: row["alpha"])
            for axes, figure_name in ((grid[0][column], "declined"), (grid[1][column], "coherence")):
                values = [[row[figure_name][part] for part in ("value", "low", "high")] for row in points]
                label = f"{key[2]}, {key[1]}" if mode == "ablate" else key[2]
                triples(axes, [row["alpha"] for row in points], values, label, number)
        grid[0][column].set_title("taken out" if mode == "ablate" else f"added at layer {found['added_at']}", fontsize=10)
        grid[1][column].set_xlabel("alpha (share removed)" if mode == "ablate" else "multiples of the mean difference")
        for axes, name in ((grid[0][column], f"declined, of {side} prompts"), (grid[1][column], "coherence")):
            axes.set_ylabel(name)
            axes.set_ylim(-0.03, 1.03)
    _legends(*grid[0])
    return figure


def regrowth(found: Row) -> Any:
    """What separates after each round, and how much longer the rest of the mean difference became."""
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6.4), sharex=True, layout="constrained")
    for number, row in enumerate(found["rounds"]):
        label = "base" if not row["k"] else f"{row['k']} removed"
        layers = range(len(row["cohens_d"]))
        triples(top, layers, row["cohens_d"], label, number)
        if row["k"]:
            triples(bottom, layers, row["growth"], label, number)
    control = found["random"]
    line(top, range(len(control["cohens_d"])), [row[0] for row in control["cohens_d"]], f"{control['k']} random removed", 7)
    triples(bottom, range(len(control["growth"])), control["growth"], f"{control['k']} random removed", 7)
    bottom.axhline(1, color="black", linewidth=0.8, linestyle=":")
    top.set_ylabel("Cohen's d, held-out pairs")
    bottom.set_ylabel("length orthogonal to the cut,\nover the base's")
    bottom.set_xlabel(STREAM_LABEL)
    _legends(top, bottom)
    return figure


def transfer(found: Row) -> Any:
    """Cosine between two models' directions by layer, and how each separates on the other model."""
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 5.6), sharex=True, layout="constrained")
    line(top, range(len(found["cosine"])), found["cosine"], "the run's and the other model's own", 0)
    for number, (name, label) in enumerate((("run", "transferred"), ("own", "the other model's own"))):
        triples(bottom, range(len(found[name]["auroc"])), found[name]["auroc"], label, number)
    top.set_ylabel("cosine")
    bottom.set_ylabel("AUROC on the other model")
    bottom.set_xlabel(LAYER_LABEL)
    _legends(top, bottom)
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
        values = [[point["declined"][part] for part in ("value", "low", "high")] for point in points]
        triples(right, [point["tokens"] for point in points], values, f"{row['variant']}, {row['kind']}", number)
    right.set_xscale("log", base=2)
    right.set_xlabel("tokens of the response that are read")
    right.set_ylabel("declined (rules on the text)")
    right.set_ylim(-0.03, 1.03)
    _legends(left, right)
    return figure


def _extent(count: int) -> tuple[float, float, float, float]:
    return (0.5, count + 0.5, 0.5, count + 0.5)


def _legends(*grid: Any) -> None:
    for axes in grid:
        axes.grid(alpha=0.25, linewidth=0.5)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=8)


PLOTS: dict[str, Sequence[Plot]] = {
    "geometry": (
        Plot("separability", "Separability by layer", "On held-out pairs; areas are 95 % intervals.", separability),
        Plot("stability", "Stability", "Cosine between directions of different pairs; how many pairs are enough.", stability),
        Plot(
            "heatmap", "Cosines between layers", "The stream carries noise from layer to layer: compare with the right.", heatmap
        ),
        Plot("spectrum", "Spectrum of the layers' directions", "One direction would put 0.9 or more into component 1.", spectrum),
        Plot("estimators", "Estimators, twins and unrelated prompts", "Each on the same held-out pairs.", estimators),
        Plot("positions", "Positions", "The same estimator at other tokens.", positions),
        Plot("kinds", "Kinds of prompts", "Furthest left of its mark: most a direction of its own. At most 24 kinds.", kinds),
        Plot("padded", "Naive padded extraction", "What attended padding does to the direction.", padded),
    ),
    "reading": (Plot("reading", "What is asked and what is done", "Two positions; grey: random directions.", reading),),
    "ablation": (Plot("alpha", "Alpha curves (runtime, by hooks)", "With controls; alpha 0 is the base.", alpha_curves),),
    "regrowth": (Plot("regrowth", "What grows back", "Extract, remove, extract again.", regrowth),),
    "transfer": (Plot("transfer", "Transfer to another model", "By layer number, as far as both go.", transfer),),
    "adapter": (Plot("adapter", "A LoRA's writes and the directions", "Leading write of each adapted tensor.", adapter),),
    "behaviour": (Plot("behaviour", "Beyond the rate", "Teacher-forced on the base's responses.", divergence),),
}
