"""ablation.json: the edit at run time over alpha: taken out of the stream, and added to it (sufficiency)."""
# H = hidden size, K = directions

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from editing.projection import orthonormal_basis
from engine.display.progress import Progress
from engine.environment import describe
from engine.evaluate.candidates import RANDOM, SHUFFLED
from engine.rollout.controls import control_directions
from engine.rollout.directions import pair_responses, streams_at, transformers_model
from engine.runs.of_config import given_layers
from engine.runs.requests import ANSWERABLE, DECLINED, Request
from engine.runs.schemas import Row
from engine.scoring.calibrations import judge_of
from engine.scoring.grader import Grader, OfflineGrader
from engine.study.ablation_engine import engine_rows
from engine.study.ablation_settings import ENGINE, AblationOptions, Setting, Subject, settings_of
from engine.study.opening import Study
from engine.study.panel import INPUTS, WRITES, make_panel, nothing, projects_norms, write_modules
from extraction.controls import Control
from extraction.directions import Streams, directions_from, unit_directions
from extraction.intervention import ablation, addition, stream_ablation
from extraction.positions import is_generated
from extraction.prompts import Prompt

DIRECTION = "direction"


def make_ablation(study: Study, options: AblationOptions, grader: Grader | None = None) -> Row:
    """Rates by site, subject and alpha on test requests of the declined kind; and with vectors added on answerable ones."""
    session, position = study.session, study.session.config.directions.position
    responses = pair_responses(session) if is_generated(position) else None
    model = transformers_model(session)
    last = max(given_layers(session.config)) or None
    streams = streams_at(session, model, session.offsets([position]), responses, last_layer=last)[position]
    subjects = [*make_subjects(study, streams, options.draws)][: None if options.controls else 1]
    settings, asked = list(settings_of(subjects, options)), _requests(study, options.num_prompts)
    if options.by == ENGINE:
        del model
        rows = engine_rows(session, subjects, settings, asked, options, grader)
    else:
        rows = _hooked_rows(study, model, settings, asked, options, grader)
    layers = given_layers(session.config)
    judge = judge_of(grader or OfflineGrader())
    norms = WRITES in options.sites and projects_norms(session)
    return {"rows": rows, "layers": layers, "added_at": subjects[0].layer, "norms": norms, "judge": judge, **describe()}


def _requests(study: Study, most: int) -> list[Sequence[Request | Prompt]]:
    """Test requests of the declined kind, which chose no layer; and answerable ones (the held-out twins where there are none)."""
    answerable = study.requests(ANSWERABLE, most)
    twins = [Prompt(pair.answered, pair.category) for pair in study.held_out[:most]]
    return [study.requests(DECLINED, most), answerable if len(answerable) > 1 else twins]


def make_subjects(study: Study, streams: Streams, draws: int = 1) -> Iterator[Subject]:
    """The configured directions, random subspaces of their dimension, and shuffled labels' directions.

    Of several random draws those after the first are called random2, random3 and so on.
    """
    config, layers = study.session.config, given_layers(study.session.config)
    size, position, estimator = config.directions.k, config.directions.position, config.directions.estimator
    directions = directions_from(streams, position, estimator)
    added_H = directions.steering_LH[layers[0]]
    yield Subject(DIRECTION, orthonormal_basis(unit_directions(directions, layers), k=size), added_H, layers[0])
    kinds = [pair.category for pair in study.session.pairs]
    for kind, draw in (*((RANDOM, draw) for draw in range(1, draws + 1)), (SHUFFLED, 1)):
        drawn = control_directions(streams, Control(kind, draw, config.sweep.seed), position, estimator, kinds)
        units_KH = unit_directions(drawn, layers)
        name = kind if draw == 1 else f"{kind}{draw}"
        yield Subject(name, orthonormal_basis(units_KH, k=size), _as_long(units_KH[0], added_H), layers[0])


def _hooked_rows(
    study: Study,
    model: Any,
    settings: Sequence[Setting],
    requests: Sequence[Sequence[Request | Prompt]],
    options: AblationOptions,
    grader: Grader | None,
) -> list[Row]:
    """A measured row for each setting, by hooks on transformers: one after another."""
    session = study.session
    writers = write_modules(session, model) if WRITES in options.sites else []
    with Progress("ablation", len(settings), "settings") as progress:
        panels = [make_panel(session, model, side, options.max_tokens, grader) for side in requests]
        rows = []
        for setting in settings:
            intervention = _intervention(setting, model, writers, biases=session.plan.scope.biases)
            rows.append(setting.heading | {"form": "hooks"} | panels[setting.side].measure(intervention))
            progress.advance()
    return rows


def _intervention(setting: Setting, model: Any, writers: Sequence[str], *, biases: bool) -> AbstractContextManager[None]:
    subject, alpha = setting.subject, float(setting.heading["alpha"])
    if subject is None:
        return nothing()
    if setting.heading["mode"] == "add":
        return addition(model, subject.layer, alpha * subject.vector_H)
    if setting.heading["site"] == INPUTS:
        return stream_ablation(model, subject.basis_HK, alpha)
    return ablation(model, writers, subject.basis_HK, alpha, biases=biases)


def _as_long(vector_H: Tensor, other_H: Tensor) -> Tensor:
    return vector_H / vector_H.norm() * other_H.norm()
