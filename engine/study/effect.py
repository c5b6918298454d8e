"""effect.json: what each direction does when it is folded out of the weights, by one table for all: estimators, a direction
against unrelated prompts, random and shuffled-label controls, on test requests in one hot-swapped engine."""
# H = hidden size, K = directions

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from editing.projection import Edit, orthonormal_basis
from engine.display.progress import Progress
from engine.environment import describe
from engine.evaluate.candidates import BASE, RANDOM, SHUFFLED, SINGLE, Candidate
from engine.evaluate.probing import filtered, make_probe
from engine.evaluate.rollouts import Rollouts
from engine.evaluate.tasks import LocalEngine
from engine.models.variant import Variant
from engine.rollout.controls import control_units
from engine.rollout.directions import pair_responses, streams_at, transformers_model
from engine.runs.of_config import given_layers
from engine.runs.requests import DECLINED, Request
from engine.runs.run_dir import RunDir
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.calibrations import judge_of
from engine.scoring.grader import Grader
from engine.study.geometry import unrelated_directions
from engine.study.opening import Study
from extraction.controls import Control
from extraction.directions import Directions, Streams, directions_from, unit_directions
from extraction.positions import is_generated
from judging.paired import Grades, holm, product_difference, product_p

NUM_REQUESTS = 128
DRAWS = {RANDOM: 3, SHUFFLED: 3}


def make_effect(study: Study, grader: Grader, estimators: Sequence[str], unrelated: str | None) -> Row:
    """Compliance, coherence and product of every candidate on test requests, paired with the base's: the layer was not
    chosen by them."""
    session = study.session
    compared = dict.fromkeys([session.config.directions.estimator, *estimators])
    candidates = [Candidate(BASE, "base", (), 0.0, session.base), *_candidates(study, list(compared), unrelated, grader)]
    found = effect_rows(session, study.folder("effect"), candidates, study.requests(DECLINED, NUM_REQUESTS), grader)
    return found | {"layers": given_layers(session.config), **describe()}


def effect_rows(
    session: Session, folder: RunDir, candidates: Sequence[Candidate], requests: Sequence[Request], grader: Grader
) -> Row:
    """A row per candidate, the base first, by one engine; responses and likelihoods are kept in `folder`."""
    rollouts = Rollouts(session, folder, LocalEngine(session), grader)
    try:
        rollouts.make(candidates, requests, session.config.sampling.max_tokens)
        rollouts.read_base(rollouts.working(candidates), requests)
        rows = _rows(rollouts, rollouts.working(candidates), requests)
    finally:
        for table in rollouts.tables:
            table.merge({"variant_hash": None, "prompt_id": None})
        rollouts.close()
    return {"rows": rows, "judge": judge_of(grader), "failures": rollouts.failures}


def _candidates(study: Study, estimators: Sequence[str], unrelated: str | None, grader: Grader) -> list[Candidate]:
    """Each estimator's direction: the configured one at the configured layers, and where several are compared each at the
    layer that it chose for itself. Then the unrelated one, then controls of the same dimension."""
    session = study.session
    position, layers = session.config.directions.position, given_layers(session.config)
    responses = pair_responses(session) if is_generated(position) else None
    model = transformers_model(session)
    last = None if len(estimators) > 1 else max(layers, default=0) or None
    train = streams_at(session, model, session.offsets([position]), responses, last_layer=last)[position]
    made = {name: directions_from(train, position, name) for name in estimators}
    configured, size = estimators[0], session.config.directions.k
    named: dict[str, Tensor] = {configured: unit_directions(made[configured], layers)}
    if unrelated is not None:
        named["against unrelated"] = unit_directions(unrelated_directions(study, model, unrelated, train), layers)
    candidates = [make_candidate(session, SINGLE, name, units_KH, size) for name, units_KH in named.items()]
    candidates += _controls(study, train, candidates[0].k)
    return [*candidates, *(own_layers(study, model, made, grader) if len(made) > 1 else [])]


def _controls(study: Study, train: Streams, k: int) -> list[Candidate]:
    """Random directions of the stream's covariance and shuffled labels, at the configured layers."""
    session = study.session
    config, kinds = session.config.directions, [pair.category for pair in session.pairs]
    drawn = [Control(kind, number, session.config.sweep.seed) for kind in DRAWS for number in range(1, DRAWS[kind] + 1)]
    return [
        make_candidate(
            session,
            control.kind,
            control.name,
            control_units(train, control, given_layers(session.config), config.position, config.estimator, kinds),
            k,
        )
        for control in drawn
    ]


def own_layers(study: Study, model: Any, made: Mapping[str, Directions], grader: Grader) -> list[Candidate]:
    """Each estimator's single direction at its own layer: of those that pass the screen on held-out pairs the strongest bypass.

    Where none passes, the strongest bypass of all. The screen is a sweep's (`engine.evaluate.probing`).
    """
    session, config = study.session, study.session.config.sweep
    depth = config.max_depth * session.checkpoint.num_layers
    layers = [layer for layer in range(1, session.checkpoint.num_layers) if layer < depth]
    probe = make_probe(session, model, study.held_out[: config.screen_prompts], grader)
    chosen = []
    with Progress("own layers", len(made) * len(layers), "directions") as progress:
        for name, directions in made.items():
            ones = [
                make_candidate(session, SINGLE, f"{name}, own layer {layer}", unit_directions(directions, [layer]))
                for layer in layers
            ]
            induced = list(probe.induce([(layer, directions.steering_LH[layer]) for layer in layers], config))
            found = []
            rows = probe.ablate(list(zip(ones, induced, strict=True)), config)
            for layer, one, row in zip(layers, ones, rows, strict=True):
                passed = filtered({**row, "layer": layer}, config, session.checkpoint.num_layers) is None
                found.append((not passed, row["bypass"], layer, one))
                progress.advance()
            chosen.append(min(found, key=lambda item: item[:3])[-1])
    return chosen


def make_candidate(session: Session, kind: str, name: str, directions_KH: Tensor, k: int | None = None) -> Candidate:
    """Directions as a variant of the session's model, with its alpha; `k` of them as in the configuration."""
    config = session.config.edit
    edit = Edit(orthonormal_basis(directions_KH, k=k), config.alpha, config.keep_norms)
    return Candidate(kind, name, (), config.alpha, Variant(name, session.base_hash, session.plan, edit))


def _rows(rollouts: Rollouts, candidates: Sequence[Candidate], requests: Sequence[Request]) -> list[Row]:
    grades = {candidate.name: rollouts.grades(candidate, requests) for candidate in candidates}
    others = [candidate.name for candidate in candidates if candidate.kind != BASE]
    p_values = dict(zip(others, holm([product_p(grades[name], grades[BASE]) for name in others]), strict=True))
    return [
        {"name": candidate.name, "kind": candidate.kind, "k": candidate.k, "p_holm": p_values.get(candidate.name)}
        | _figures(grades[candidate.name])
        | _difference(grades, candidate.name)
        for candidate in candidates
    ]


def _difference(grades: Mapping[str, Grades], name: str) -> Row:
    return {} if name == BASE else {"difference": asdict(product_difference(grades[name], grades[BASE]))}


def _figures(grades: Grades) -> Row:
    return {"n": int(grades.known.sum())} | {name: asdict(estimate) for name, estimate in grades.estimates().items()}
