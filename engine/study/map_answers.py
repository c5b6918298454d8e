"""Responses of a map's candidates and their grades: one engine, weights swapped, everything kept on disk and taken up again."""
# N = requests

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from engine.evaluate.candidates import Candidate
from engine.evaluate.rollouts import Rollouts
from engine.evaluate.tasks import LocalEngine
from engine.paths import hash_of
from engine.runs.requests import DECLINED, Request
from engine.runs.run_dir import RunDir
from engine.runs.schemas import Row
from engine.scoring.grader import Grader
from engine.study.opening import Study
from engine.study.refusal_sets import TEST, RefusalSet, sets_hash
from judging.judgement import Judgement
from judging.statistics import mean, rate


class Answers:
    """Candidates' responses to the requests of sets, graded by what is read in them alone."""

    def __init__(self, study: Study, sets: Sequence[RefusalSet], grader: Grader, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.rollouts = Rollouts(study.session, _folder(study, sets, max_tokens), LocalEngine(study.session), grader)

    def make(self, candidates: Sequence[Candidate], requests: Sequence[Request]) -> None:
        """Generate and grade what is missing. Raises EngineError where the base cannot answer."""
        self.rollouts.make(candidates, requests, self.max_tokens)
        self.rollouts.working(candidates)

    def judged(self, candidate: Candidate, requests: Sequence[Request]) -> list[Judgement | None]:
        """The grades of one candidate's responses, in order; None for one that is not there."""
        return [self.rollouts.scoring.grades.get(key) for key in self.rollouts.keys([candidate], requests)]

    def declined(self, candidate: Candidate, requests: Sequence[Request]) -> np.ndarray:
        """1 where a response declines, 0 where it does not, NaN where nobody says: (N,)."""
        said = [None if one is None else one.declined for one in self.judged(candidate, requests)]
        return np.array([np.nan if flag is None else float(flag) for flag in said])

    def coherence(self, candidate: Candidate, requests: Sequence[Request]) -> np.ndarray:
        """Coherence of each response, NaN where it has no grade: (N,)."""
        said = [None if one is None else one.coherence for one in self.judged(candidate, requests)]
        return np.array([np.nan if grade is None else grade for grade in said])

    def close(self) -> None:
        """Merge what is on disk and stop the engine."""
        for table in self.rollouts.tables:
            table.merge({"variant_hash": None, "prompt_id": None})
        self.rollouts.close()


def _folder(study: Study, sets: Sequence[RefusalSet], max_tokens: int) -> RunDir:
    """A folder for each content of the sets, in which a prompt's number means one prompt."""
    path = study.run_dir.path / "map" / hash_of({**study.shared_inputs, "sets": sets_hash(sets), "max_tokens": max_tokens})
    path.mkdir(parents=True, exist_ok=True)
    return RunDir(path, {})


def declined_rate(flags: np.ndarray, requests: Sequence[Request]) -> Row:
    """The declined share of responses that were judged, its interval over templates."""
    known = ~np.isnan(flags)
    templates = [request.category for request, there in zip(requests, known, strict=True) if there]
    return asdict(rate([bool(flag) for flag in flags[known]], templates))


def mean_of(values: np.ndarray, requests: Sequence[Request]) -> Row:
    """A mean grade, its interval over templates."""
    known = ~np.isnan(values)
    return asdict(
        mean(values[known].tolist(), [request.category for request, there in zip(requests, known, strict=True) if there])
    )


def table_row(answers: Answers, candidate: Candidate, what: str, watched: Mapping[str, Sequence[Request]]) -> Row:
    """A row of the k x k table: what was removed, the declined share of every kind's test requests, and coherence over all."""
    every = [request for requests in watched.values() for request in requests]
    return {
        "removed": candidate.name,
        "what": what,
        "k": candidate.k,
        "declined": {name: declined_rate(answers.declined(candidate, some), some) for name, some in watched.items()},
        "coherence": mean_of(answers.coherence(candidate, every), every),
    }


def watched_requests(sets: Sequence[RefusalSet]) -> dict[str, list[Request]]:
    """The test requests of each kind that may be declined."""
    return {one.name: one.requests(TEST, DECLINED) for one in sets}
