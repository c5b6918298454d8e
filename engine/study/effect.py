"""effect.json: what each direction does when it is folded out of the weights, by one table for all: estimators, a direction
against unrelated prompts, random and shuffled-label controls, on test requests in one hot-swapped engine."""
# H = hidden size, K = directions

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from torch import Tensor

from editing.projection import Edit, orthonormal_basis
from engine.environment import describe
from engine.evaluate.candidates import BASE, RANDOM, SHUFFLED, SINGLE, Candidate
from engine.evaluate.rollouts import Rollouts
from engine.evaluate.tasks import LocalEngine
from engine.models.variant import Variant
from engine.rollout.controls import control_units
from engine.rollout.directions import pair_responses, streams_at, transformers_model
from engine.runs.inputs import DECLINED, Request, given_layers
from engine.runs.run_dir import RunDir
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.calibrations import judge_of
from engine.scoring.grader import Grader
from engine.study.geometry import unrelated_directions
from engine.study.opening import Study
from extraction.controls import Control
from extraction.directions import directions_from, unit_directions
from extraction.positions import RESPONSE
from judging.paired import Grades, holm, product_difference, product_p

NUM_RANDOM, NUM_SHUFFLED, NUM_REQUESTS = 3, 3, 128


def make_effect(study: Study, grader: Grader, estimators: Sequence[str], unrelated: str | None) -> Row:
    """Compliance, coherence and product of every candidate on test requests, paired with the base's: the layer was not
    chosen by them."""
    session = study.session
    compared = dict.fromkeys([session.config.directions.estimator, *estimators])
    candidates = [Candidate(BASE, "base", (), 0.0, session.base), *_candidates(study, list(compared), unrelated)]
    found = effect_rows(session, study.folder("effect"), candidates, study.requests(DECLINED, NUM_REQUESTS), grader)
    return found | {"layers": given_layers(session.config), **describe()}


def effect_rows(
    session: Session, folder: RunDir, candidates: Sequence[Candidate], requests: Sequence[Request], grader: Grader
) -> Row:
    """A row per candidate, the base first, by one engine; responses and likelihoods are kept in `folder`."""
    rollouts = Rollouts(session, folder, LocalEngine(session), grader)
    try:
        rollouts.make(candidates, requests, session.config.sampling.max_tokens)
        rollouts.add_likelihoods(rollouts.working(candidates), requests)
        rows = _rows(rollouts, rollouts.working(candidates), requests)
    finally:
        for table in (rollouts.table, rollouts.likelihoods):
            table.merge({"variant_hash": None, "prompt_id": None})
        rollouts.close()
    return {"rows": rows, "judge": judge_of(grader), "failures": rollouts.failures}


def _candidates(study: Study, estimators: Sequence[str], unrelated: str | None) -> list[Candidate]:
    """One for each estimator at the configured layers, then the unrelated one, then controls of the same dimension."""
    session = study.session
    position, layers = session.config.directions.position, given_layers(session.config)
    positions = session.offsets([position])
    responses = pair_responses(session) if position == RESPONSE else None
    model = transformers_model(session)
    train = streams_at(session, model, positions, responses, last_layer=max(layers, default=0) or None)[position]
    named: dict[str, Tensor] = {
        estimator: unit_directions(directions_from(train, position, estimator), layers) for estimator in estimators
    }
    if unrelated is not None:
        named["against unrelated"] = unit_directions(unrelated_directions(study, model, unrelated, train), layers)
    size = session.config.directions.k
    candidates = [make_candidate(session, SINGLE, name, units_KH, size) for name, units_KH in named.items()]
    estimator, kinds = session.config.directions.estimator, [pair.category for pair in session.pairs]
    for kind, most in ((RANDOM, NUM_RANDOM), (SHUFFLED, NUM_SHUFFLED)):
        for number in range(1, most + 1):
            control = Control(kind, number, session.config.sweep.seed)
            units_KH = control_units(train, control, layers, position, estimator, kinds)
            candidates.append(make_candidate(session, kind, control.name, units_KH, size))
    return candidates


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
