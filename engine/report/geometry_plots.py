"""Figures of geometry.json: what the directions separate, how stable they are, and what they span. Each takes the study's JSON
and gives a finished matplotlib figure, or None where it was not measured."""

from typing import Any

from engine.display import plotting
from engine.display.plotting import HEAT, LAYER_LABEL, band, estimates, legends, line
from engine.display.study_words import compared_estimators
from engine.runs.schemas import Row

MOST_KINDS, MOST_CURVES = 24, 3


def separability(geometry: Row) -> Any:
    """Cohen's d and AUROC by layer on held-out pairs, with the null bands and the training figure."""
    own = geometry["positions"][geometry["position"]]
    mean = own["estimators"]["mean_difference"]
    layers = range(len(mean["cohens_d"]))
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6.4), sharex=True, layout="constrained")
    for axes, key in ((top, "cohens_d"), (bottom, "auroc")):
        estimates(axes, layers, mean[key], "mean difference, held-out pairs", 0)
        for number, null in ((7, "shuffled"), (5, "random")):
            band(axes, layers, [row[null][key] for row in own["null"]], number, f"{null} directions, 95 %")
    line(top, layers, mean["train_cohens_d"], "mean difference, its own pairs", 1)
    probe = geometry["probe"]["held_out"]
    line(bottom, layers, [row["value"] for row in probe], "logistic probe: accuracy, held out", 2)
    top.set_ylabel("Cohen's d")
    bottom.set_ylabel("AUROC (accuracy for the probe)")
    bottom.set_ylim(min(0.3, *bottom.get_ylim()), 1.02)
    bottom.set_xlabel(LAYER_LABEL)
    legends(top, bottom)
    return figure


def estimators(geometry: Row) -> Any:
    """Each estimator's cosine to the mean difference, and its d on held-out pairs."""
    named = compared_estimators(geometry)
    if len(named) < 2:
        return None
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for number, (name, found) in enumerate(named.items()):
        layers = range(len(found["cohens_d"]))
        if name != "mean_difference":
            line(top, layers, found["cosine_to_mean_difference"], name, number)
        line(bottom, layers, [row["value"] for row in found["cohens_d"]], name, number)
    null = geometry["positions"][geometry["position"]]["null"]
    band(bottom, range(len(null)), [row["shuffled"]["cohens_d"] for row in null], 7, "shuffled directions, 95 %")
    top.set_ylabel("cosine to the mean difference")
    bottom.set_ylabel("Cohen's d, held-out pairs")
    bottom.set_xlabel(LAYER_LABEL)
    legends(top, bottom)
    return figure


def positions(geometry: Row) -> Any:
    """AUROC and cosine to the run's own direction, position by position."""
    if len(geometry["positions"]) < 2:
        return None
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for number, (name, found) in enumerate(geometry["positions"].items()):
        mean = found["estimators"]["mean_difference"]
        layers = range(len(mean["auroc"]))
        line(top, layers, [row["value"] for row in mean["cohens_d"]], name, number)
        if name == geometry["position"]:
            band(top, layers, [row["shuffled"]["cohens_d"] for row in found["null"]], 7, f"shuffled directions at {name}, 95 %")
        if name != geometry["position"]:
            line(bottom, layers, found["cosine_to_main"], name, number)
    top.set_ylabel("Cohen's d, held-out pairs")
    bottom.set_ylabel(f"cosine to the direction at {geometry['position']}")
    bottom.set_xlabel(LAYER_LABEL)
    legends(top, bottom)
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
    figure.colorbar(image, ax=grid, label="cosine", shrink=0.85, extend="min")
    return figure


def stability(geometry: Row) -> Any:
    """Split-half and bootstrap cosine by layer, and the cosine over the number of pairs at the run's own layers."""
    figure, (top, bottom) = plotting.pyplot().subplots(2, 1, figsize=(8, 6.6), layout="constrained")
    layers = [int(layer) for layer in geometry["stability"]]
    rows = list(geometry["stability"].values())
    estimates(top, layers, [row["split_half"] for row in rows], "two halves of the pairs", 0)
    estimates(top, layers, [row["bootstrap"] for row in rows], "a resample and all pairs", 2)
    band(top, layers, [[row["null"]["low"], row["null"]["high"]] for row in rows], 7, "two halves, sides swapped at random, 95 %")
    top.set_xlabel(LAYER_LABEL)
    top.set_ylabel("cosine")
    for number, (layer, points) in enumerate(list(geometry["curves"].items())[:MOST_CURVES]):
        counts = [point["pairs"] for point in points]
        estimates(bottom, counts, [point["split"] for point in points], f"layer {layer}: two disjoint draws", 2 * number)
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
    legends(top, bottom)
    return figure


def spectrum(geometry: Row) -> Any:
    """The spectrum of the stacked unit directions: as it is, corrected for noise, and of shuffled labels."""
    figure, axes = plotting.pyplot().subplots(figsize=(8, 3.8), layout="constrained")
    places = range(1, len(geometry["unit_spectrum"]) + 1)
    line(axes, places, geometry["unit_spectrum"], "as extracted", 1)
    estimates(axes, places, geometry["shuffled_spectrum"], "shuffled labels, as extracted", 7)
    found = geometry["structure"]
    if found is not None:
        rows = found["spectrum"]
        estimates(axes, range(1, len(rows) + 1), rows, "noise taken out", 0)
    axes.set_xlim(0.5, min(len(places), 12) + 0.5)
    axes.set_xlabel("component of the stacked unit directions")
    axes.set_ylabel("share of the squared length")
    legends(axes)
    return figure


def padded(found: Row) -> Any:
    """Cosine between exact directions and those of naive padded batches."""
    figure, axes = plotting.pyplot().subplots(figsize=(8, 3.2), layout="constrained")
    cosines = found["cosine"]
    line(axes, range(len(cosines)), cosines, "naive padded batch against exact", 1)
    axes.set_ylim(min(0.0, *(value for value in cosines if value is not None)) - 0.02, 1.02)
    axes.set_xlabel(LAYER_LABEL)
    axes.set_ylabel("cosine")
    legends(axes)
    return figure


def kinds(geometry: Row) -> Any:
    """Each kind's own direction against the direction of all other kinds, beside what pairs dealt to kinds at random give."""
    layer, found = next(iter(geometry["kinds"].items()), (None, None))
    if not found or len(found) < 2:
        return None
    named = sorted(found.items(), key=lambda item: (item[1]["p"], item[1]["cosine"]))[:MOST_KINDS]
    figure, axes = plotting.pyplot().subplots(figsize=(8, 1.2 + 0.19 * len(named)), layout="constrained")
    places = range(len(named))
    axes.plot([row["cosine"] for _, row in named], places, "o", color=plotting.COLOURS[0], markersize=4, label="cosine")
    lows, highs = ([row["expected"][end] for _, row in named] for end in (1, 2))
    axes.hlines(places, lows, highs, color=plotting.COLOURS[1], linewidth=2, label="pairs dealt to kinds at random, 95 %")
    axes.set_yticks(list(places), [f"{kind} ({row['pairs']}; p {row['p']:.3f})" for kind, row in named], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"cosine to the direction of all other kinds, layer {layer}")
    axes.axvline(0, color="black", linewidth=0.8)
    legends(axes)
    return figure


def _extent(count: int) -> tuple[float, float, float, float]:
    return (0.5, count + 0.5, 0.5, count + 0.5)
