"""What a sweep keeps of its responses: on disk once each, taken up again, graded as plain rows are, and bytes of memory a row."""

import statistics
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

from engine.benchmarks.cluster import candidates_of, requests_of
from engine.benchmarks.modelless import ModellessReplica
from engine.configs.load import load_config
from engine.evaluate.candidates import BASE, Candidate
from engine.evaluate.rollouts import Rollouts
from engine.evaluate.tasks import Host, Result, Task
from engine.runs.run_dir import RunDir
from engine.runs.session import Session
from engine.scoring.grader import FittedGrader, OfflineGrader
from engine.sweep.result import score_rows
from judging.fitted import FittedJudge
from judging.offline import OfflineJudge


class ModellessEngines:
    """Does tasks in this process; a prompt's log-probability is minus its place."""

    def __init__(self, tokens: int = 30) -> None:
        self.host = Host(ModellessReplica(1e9, tokens))  # type: ignore[arg-type]
        self.host.replica.mean_logprobs = self.read  # type: ignore[assignment]
        self.done: list[Task] = []

    def read(self, prompts: Sequence[Sequence[int]], *options: object, **named: object) -> list[float | None]:
        return [-0.1 * len(ids) for ids in prompts]

    def run(self, tasks: Iterable[Task]) -> Iterator[Result]:
        for task in tasks:
            self.done.append(task)
            yield self.host.do(task)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def session(smollm2_dir: Path) -> Session:
    return Session(load_config("smollm2_135m_k1"))


def opened(session: Session, folder: Path) -> tuple[Rollouts, ModellessEngines]:
    engines = ModellessEngines()
    return Rollouts(session, RunDir(folder, {"stages": {}}), engines, OfflineGrader()), engines


def test_responses_are_stored_once_graded_with_likelihoods_and_taken_up_again(session: Session, tmp_path: Path) -> None:
    requests, candidates = requests_of(session, 30), candidates_of(session, 3)
    everyone = [Candidate(BASE, "base", (), 0.0, session.base), *candidates]
    first, engines = opened(session, tmp_path)
    first.make(everyone[:3], requests[:20], 30)
    first.close()
    again, engines = opened(session, tmp_path)
    again.make(everyone, requests[:20], 30)
    assert [task.subject for task in engines.done] == [candidates[-1].variant.hash]
    again.read_base(everyone, requests[:20])
    rows = pd.concat(pd.read_parquet(file) for file in again.table.files())
    likelihoods = pd.concat(pd.read_parquet(file) for file in again.likelihoods.files())
    assert len(rows) == 80 == len(again.lengths) and not rows.duplicated(["variant_hash", "prompt_id"]).any()
    logprobs = {(one.variant_hash, one.prompt_id): one.mean_logprob for one in likelihoods.itertuples()}
    assert dict(again.logprobs) == logprobs and len(logprobs) == 80
    scored = [task for task in engines.done if task.responses is not None]
    stored = {(one.variant_hash, one.prompt_id): tuple(one.response_token_ids) for one in rows.itertuples()}
    for task in scored:
        assert task.responses == tuple(stored[task.subject, prompt_id] for prompt_id in task.prompt_ids)
    reference = statistics.median(logprobs[session.base.hash, request.prompt_id] for request in requests[:20])
    judge = OfflineJudge(reference)
    for one in rows.itertuples():
        key = (one.variant_hash, one.prompt_id)
        assert again.scoring.grades[key] == judge.score(one.prompt, one.response, mean_logprob=logprobs[key])
    again.close()
    third, _ = opened(session, tmp_path)
    third.scoring.drain()
    assert dict(third.lengths) == dict(again.lengths) and dict(third.logprobs) == logprobs
    third.close()


def test_what_the_base_said_of_its_own_responses_is_not_asked_again(session: Session, tmp_path: Path) -> None:
    requests, candidates = requests_of(session, 20), [Candidate(BASE, "base", (), 0.0, session.base), *candidates_of(session, 2)]
    rollouts, engines = opened(session, tmp_path)
    rollouts.make(candidates, requests, 30)
    rollouts.read_base(candidates, requests)
    assert {task.subject for task in engines.done if task.responses is not None} == {one.variant.hash for one in candidates[1:]}


def test_it_is_kept_as_a_likelihood(session: Session, tmp_path: Path) -> None:
    requests, base = requests_of(session, 20), Candidate(BASE, "base", (), 0.0, session.base)
    rollouts, _ = opened(session, tmp_path)
    rollouts.make([base], requests, 30)
    rollouts.read_base([base], requests)
    assert [row["mean_logprob"] for row in rollouts.likelihoods.rows()] == [-1.0] * len(requests)


def viewed(session: Session, folder: Path) -> tuple[Rollouts, ModellessEngines, list[Candidate]]:
    """Three candidates' responses to 20 requests, graded by the fitted judge with the base's views."""
    engines = ModellessEngines()
    rollouts = Rollouts(session, RunDir(folder, {"stages": {}}), engines, FittedGrader("fitted"))
    candidates = candidates_of(session, 3)
    rollouts.make(candidates, requests_of(session, 20), 30)
    rollouts.read_base(candidates, requests_of(session, 20))
    return rollouts, engines, candidates


def test_a_task_of_views_holds_all_variants_of_a_prompt(session: Session, tmp_path: Path) -> None:
    _, engines, candidates = viewed(session, tmp_path)
    tasks = [task for task in engines.done if task.views is not None]
    expected = [candidate.variant.hash for candidate in candidates]
    by_prompt = [(prompt, subject) for task in tasks for prompt, subject in zip(task.prompt_ids, task.subjects, strict=True)]
    assert [subject for prompt, subject in by_prompt if prompt == by_prompt[0][0]] == expected


def test_views_are_stored_once_and_taken_up_again(session: Session, tmp_path: Path) -> None:
    viewed(session, tmp_path)
    again, engines, _ = viewed(session, tmp_path)
    assert (engines.done, len(again.viewed)) == ([], 60)


def test_the_fitted_judge_weighs_them(session: Session, tmp_path: Path) -> None:
    rollouts, _, _ = viewed(session, tmp_path)
    row = next(iter(rollouts.table.rows()))
    key = (row["variant_hash"], row["prompt_id"])
    score = FittedJudge().score(row["prompt"], row["response"], finish_reason=row["finish_reason"], view=rollouts.viewed[key])
    assert rollouts.scoring.grades[key] == score


def test_rows_of_scores_say_that_views_were_read(session: Session, tmp_path: Path) -> None:
    rollouts, _, _ = viewed(session, tmp_path)
    assert {row["judge"] for rows in score_rows(rollouts) for row in rows} == {"fitted"}


def kept_bytes(session: Session, folder: Path, variants: int) -> int:
    """Python's memory that a sweep holds after it made 100 responses of each variant."""
    folder.mkdir()
    requests, candidates = requests_of(session, 100), candidates_of(session, variants)
    rollouts, _ = opened(session, folder)
    rollouts.engines.done = Forgetful()  # type: ignore[attr-defined]
    tracemalloc.start()
    rollouts.make(candidates, requests, 30)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    rollouts.close()
    return kept


class Forgetful(list[Task]):
    """Keeps nothing."""

    def append(self, task: Task) -> None:
        pass


def test_a_sweep_holds_some_bytes_a_response_and_none_of_its_text(session: Session, tmp_path: Path) -> None:
    few, many = kept_bytes(session, tmp_path / "few", 4), kept_bytes(session, tmp_path / "many", 16)
    print(f"{few / 1e3:.0f} kB for 400 responses, {many / 1e3:.0f} kB for 1,600")
    assert (many - few) / 1200 < 250
