"""The figures of a report: which study allows which, and what stands above and below each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.display import plotting
from engine.report import geometry_plots as of_geometry
from engine.report import map_plots as of_map
from engine.report import study_plots as of_study
from engine.report.collect import RunData
from engine.runs.schemas import Row


@dataclass(frozen=True)
class Plot:
    """A figure's file name, its title and caption on the page, and what draws it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Row], Any]


def plots_of(run: RunData) -> list[tuple[Plot, dict[str, bytes]]]:
    """Every figure that this run's studies allow, drawn, by format."""
    found = []
    for study, plots in PLOTS.items():
        data = run.studies.get(study, {})
        for plot in plots if data else ():
            figure = plot.draw(data)
            if figure is not None:
                found.append((plot, plotting.images(figure)))
    return found


PLOTS: dict[str, Sequence[Plot]] = {
    "geometry": (
        Plot("separability", "Separability by layer", "On held-out pairs; areas are 95 % intervals.", of_geometry.separability),
        Plot(
            "stability",
            "Stability",
            "Cosine between directions of different pairs, areas: 95 % of the draws; how many pairs are enough.",
            of_geometry.stability,
        ),
        Plot(
            "heatmap",
            "Cosines between layers",
            "The stream carries noise from layer to layer: compare with the right. Independent directions would show nothing.",
            of_geometry.heatmap,
        ),
        Plot(
            "spectrum",
            "Spectrum of the layers' directions",
            "Do the layers' means share a line? Then component 1 would hold 0.9 or more.",
            of_geometry.spectrum,
        ),
        Plot("estimators", "Estimators, twins and unrelated prompts", "Each on the same held-out pairs.", of_geometry.estimators),
        Plot("positions", "Positions", "The same estimator at other tokens.", of_geometry.positions),
        Plot(
            "kinds",
            "Kinds of prompts",
            "Left of its line: a direction of its own. p is corrected for the number of kinds. At most 24 kinds.",
            of_geometry.kinds,
        ),
    ),
    "padded": (Plot("padded", "Naive padded extraction", "What attended padding does to the direction.", of_geometry.padded),),
    "reading": (
        Plot("reading", "What is asked and what is done", "Two positions, on the run's test requests.", of_study.reading),
    ),
    "ablation": (
        Plot("alpha", "Alpha curves (runtime, by hooks)", "With controls; alpha 0 is the base.", of_study.alpha_curves),
    ),
    "regrowth": (Plot("regrowth", "What grows back", "Extract, remove, extract again.", of_study.regrowth),),
    "transfer": (Plot("transfer", "Transfer to another model", "By layer number, as far as both go.", of_study.transfer),),
    "adapter": (
        Plot("adapter", "A LoRA's writes and the directions", "Leading write of each adapted tensor.", of_study.adapter),
    ),
    "map": (
        Plot("map", "Remove the row, watch the column", "Kinds of refusal, on test requests of each.", of_map.removals),
        Plot("map-cosines", "Cosines between kinds of refusal", "Without the noise of few pairs.", of_map.cosines),
    ),
    "behaviour": (Plot("behaviour", "Beyond the rate", "Teacher-forced on the base's responses.", of_study.divergence),),
}
