"""ablation.json: the edit at run time, by hooks, over alpha: taken out of the stream, and added to it (sufficiency)."""
# H = hidden size, K = directions

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from editing.projection import orthonormal_basis
from engine.directions import DIRECTIONS, ensure_directions, streams_at, transformers_model
from engine.environment import describe
from engine.progress import Progress
from engine.session import given_layers
from engine.study.opening import Study
from engine.study.panel import INPUTS, Panel, make_panel, nothing, write_modules
from extraction.directions import Directions, directions_of, swapped_pairs, unit_directions
from extraction.files import load_directions
from extraction.intervention import ablation, addition, stream_ablation
from judging.offline import NOTICE

DIRECTION, RANDOM, SHUFFLED = "direction", "random", "shuffled"
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Shares removed, at which sites; multiples of the mean difference added; how many requests, how long."""

    alphas: tuple[float, ...]
    sites: tuple[str, ...]
    added: tuple[float, ...]
    num_prompts: int
    max_tokens: int
    controls: bool


@dataclass(frozen=True)
class Subject:
    """What is removed or added: a basis, and the vector that is added at `layer`."""

    kind: str
    basis_HK: Tensor
    vector_H: Tensor
    layer: int


def make_ablation(study: Study, options: Options) -> Row:
    """Rates by site, subject and alpha on held-out declined requests; and with vectors added on the answered ones."""
    session = study.session
    ensure_directions(study.whole, study.run_dir)
    directions = load_directions(study.run_dir.file(DIRECTIONS))
    model = transformers_model(session)
    subjects = [*make_subjects(study, model, directions)][: None if options.controls else 1]
    pairs = study.held_out[: options.num_prompts]
    num_rows = len(subjects) * (len(options.alphas) * len(options.sites) + len(options.added)) + 2
    with Progress("ablation", num_rows, "settings") as progress:
        panels = [
            make_panel(session, model, [getattr(pair, side) for pair in pairs], options.max_tokens)
            for side in ("declined", "answered")
        ]
        rows = []
        for row, panel, intervention in _settings(study, model, subjects, panels, options):
            rows.append(row | panel.measure(intervention))
            progress.advance()
    layers = given_layers(session.config)
    judge = {"name": "offline", "notice": NOTICE}
    return {"rows": rows, "layers": layers, "added_at": subjects[0].layer, "judge": judge, **describe()}


def make_subjects(study: Study, model: Any, directions: Directions) -> Iterator[Subject]:
    """The configured directions, a random subspace of their dimension, and shuffled labels' directions."""
    session = study.session
    layers, seed = given_layers(session.config), session.config.sweep.seed
    added_H = directions.steering_LH[layers[0]]
    yield Subject(DIRECTION, orthonormal_basis(unit_directions(directions, layers)), added_H, layers[0])
    generator = torch.Generator().manual_seed(seed)
    random_KH = torch.randn(len(layers), session.checkpoint.hidden_size, generator=generator, dtype=torch.float64)
    yield Subject(RANDOM, orthonormal_basis(random_KH), _as_long(random_KH[0], added_H), layers[0])
    position = directions.position
    streams = streams_at(session, model, session.offsets([position]))[position]
    shuffled = directions_of(streams.swapped(swapped_pairs(streams.num_pairs, seed)), position)
    units_KH = unit_directions(shuffled, layers)
    yield Subject(SHUFFLED, orthonormal_basis(units_KH), _as_long(units_KH[0], added_H), layers[0])


def _settings(
    study: Study, model: Any, subjects: Sequence[Subject], panels: Sequence[Panel], options: Options
) -> Iterator[tuple[Row, Panel, AbstractContextManager[None]]]:
    """Every row's heading, the requests it is measured on, and the intervention."""
    for panel, side in zip(panels, ("declined", "answered"), strict=True):
        yield {"mode": "none", "requests": side, "site": None, "subject": "base", "alpha": 0.0}, panel, nothing()
    for site in options.sites:
        writers = [] if site == INPUTS else write_modules(study.session, model)
        for subject in subjects:
            for alpha in options.alphas:
                heading = {"mode": "ablate", "requests": "declined", "site": site, "subject": subject.kind, "alpha": alpha}
                if site == INPUTS:
                    yield heading, panels[0], stream_ablation(model, subject.basis_HK, alpha)
                else:
                    yield heading, panels[0], ablation(model, writers, subject.basis_HK, alpha)
    for subject in subjects:
        for alpha in options.added:
            heading = {"mode": "add", "requests": "answered", "site": "layer", "subject": subject.kind, "alpha": alpha}
            yield heading, panels[1], addition(model, subject.layer, alpha * subject.vector_H)


def _as_long(vector_H: Tensor, other_H: Tensor) -> Tensor:
    return vector_H / vector_H.norm() * other_H.norm()
