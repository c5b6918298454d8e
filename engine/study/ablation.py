"""ablation.json: the edit at run time, by hooks, over alpha: taken out of the stream, and added to it (sufficiency)."""
# H = hidden size, K = directions

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from editing.projection import orthonormal_basis
from engine.display.progress import Progress
from engine.environment import describe
from engine.evaluate.candidates import RANDOM, SHUFFLED
from engine.rollout.controls import control_directions
from engine.rollout.directions import pair_responses, streams_at, transformers_model
from engine.runs.inputs import given_layers
from engine.runs.requests import ANSWERABLE, DECLINED, Request
from engine.runs.schemas import Row
from engine.scoring.calibrations import judge_of
from engine.scoring.grader import Grader, OfflineGrader
from engine.study.opening import Study
from engine.study.panel import INPUTS, WRITES, RequestPanel, make_panel, nothing, projects_norms, write_modules
from extraction.controls import Control
from extraction.directions import Streams, directions_from, unit_directions
from extraction.intervention import ablation, addition, stream_ablation
from extraction.positions import RESPONSE
from extraction.prompts import Prompt

DIRECTION = "direction"


@dataclass(frozen=True)
class AblationOptions:
    """Shares removed, at which sites; multiples of the mean difference added; how many requests, how long."""

    alphas: tuple[float, ...]
    sites: tuple[str, ...]
    added: tuple[float, ...]
    num_prompts: int
    max_tokens: int
    controls: bool


@dataclass(frozen=True)
class Subject:
    """A thing that is removed or added: a basis, and the vector that is added at `layer`."""

    kind: str
    basis_HK: Tensor
    vector_H: Tensor
    layer: int


def make_ablation(study: Study, options: AblationOptions, grader: Grader | None = None) -> Row:
    """Rates by site, subject and alpha on test requests of the declined kind; and with vectors added on answerable ones."""
    session, position = study.session, study.session.config.directions.position
    responses = pair_responses(session) if position == RESPONSE else None
    model = transformers_model(session)
    last = max(given_layers(session.config)) or None
    streams = streams_at(session, model, session.offsets([position]), responses, last_layer=last)[position]
    subjects = [*make_subjects(study, streams)][: None if options.controls else 1]
    num_rows = len(subjects) * (len(options.alphas) * len(options.sites) + len(options.added)) + 2
    with Progress("ablation", num_rows, "settings") as progress:
        asked = _requests(study, options.num_prompts)
        panels = [make_panel(session, model, requests, options.max_tokens, grader) for requests in asked]
        rows = []
        for row, panel, intervention in _settings(study, model, subjects, panels, options):
            rows.append(row | panel.measure(intervention))
            progress.advance()
    layers = given_layers(session.config)
    judge = judge_of(grader or OfflineGrader())
    norms = WRITES in options.sites and projects_norms(session)
    return {"rows": rows, "layers": layers, "added_at": subjects[0].layer, "norms": norms, "judge": judge, **describe()}


def _requests(study: Study, most: int) -> list[Sequence[Request | Prompt]]:
    """Test requests of the declined kind, which chose no layer; and answerable ones (the held-out twins where there are none)."""
    answerable = study.requests(ANSWERABLE, most)
    twins = [Prompt(pair.answered, pair.category) for pair in study.held_out[:most]]
    return [study.requests(DECLINED, most), answerable if len(answerable) > 1 else twins]


def make_subjects(study: Study, streams: Streams) -> Iterator[Subject]:
    """The configured directions, a random subspace of their dimension, and shuffled labels' directions."""
    config, layers = study.session.config, given_layers(study.session.config)
    size, position, estimator = config.directions.k, config.directions.position, config.directions.estimator
    directions = directions_from(streams, position, estimator)
    added_H = directions.steering_LH[layers[0]]
    yield Subject(DIRECTION, orthonormal_basis(unit_directions(directions, layers), k=size), added_H, layers[0])
    kinds = [pair.category for pair in study.session.pairs]
    for kind in (RANDOM, SHUFFLED):
        drawn = control_directions(streams, Control(kind, 1, config.sweep.seed), position, estimator, kinds)
        units_KH = unit_directions(drawn, layers)
        yield Subject(kind, orthonormal_basis(units_KH, k=size), _as_long(units_KH[0], added_H), layers[0])


def _settings(
    study: Study, model: Any, subjects: Sequence[Subject], panels: Sequence[RequestPanel], options: AblationOptions
) -> Iterator[tuple[Row, RequestPanel, AbstractContextManager[None]]]:
    """Every row's heading, the requests it is measured on, and the intervention."""
    biases = study.session.plan.scope.biases
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
                    yield heading, panels[0], ablation(model, writers, subject.basis_HK, alpha, biases=biases)
    for subject in subjects:
        for alpha in options.added:
            heading = {"mode": "add", "requests": "answered", "site": "layer", "subject": subject.kind, "alpha": alpha}
            yield heading, panels[1], addition(model, subject.layer, alpha * subject.vector_H)


def _as_long(vector_H: Tensor, other_H: Tensor) -> Tensor:
    return vector_H / vector_H.norm() * other_H.norm()
