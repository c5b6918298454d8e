"""Two real replicas as Ray actors, one of them SIGKILLed in the middle, against one engine in this process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from editing.projection import Edit, orthonormal_basis
from engine.configs.load import load_config
from engine.evaluate.candidates import SINGLE, Candidate
from engine.evaluate.ray_engines import RayEngines
from engine.evaluate.rollouts import Rollouts
from engine.evaluate.tasks import LocalEngine, Result, Task
from engine.models.variant import Variant
from engine.runs.run_dir import RunDir
from engine.runs.session import Session
from engine.scoring.grader import OfflineGrader
from engine.sweep.grid import Grid
from engine.sweep.inputs import SweepInputs
from engine.sweep.result import confirm_rows
from engine.sweep.search import Search

pytestmark = pytest.mark.engine
NUM_VARIANTS, NUM_PROMPTS = 6, 16


@pytest.fixture(scope="module")
def session(smollm2_dir: Path) -> Iterator[Session]:
    config = load_config("smollm2_135m_k1", {"data.num_requests": NUM_PROMPTS, "sampling.max_tokens": 24})
    session = Session(config)
    yield session
    session.close()


@pytest.fixture(scope="module")
def tasks(session: Session) -> list[Task]:
    prompts = session.render(session.requests[:NUM_PROMPTS], "test requests")
    made = []
    for seed in range(NUM_VARIANTS):
        basis = orthonormal_basis(torch.randn(1, 576, generator=torch.Generator().manual_seed(seed)))
        variant = Variant(f"random{seed}", session.base_hash, session.plan, Edit(basis, 1.0))
        ids = tuple(request.prompt_id for request in session.requests[:NUM_PROMPTS])
        made.append(Task(variant, variant.hash, ids, tuple(map(tuple, prompts)), session.config.sampling))
    return made


def rows(results: list[Result]) -> dict[tuple[str, str], list[int]]:
    keyed = [
        ((result.task.subject, prompt_id), generation.token_ids)
        for result in results
        for prompt_id, generation in zip(result.task.prompt_ids, result.generations, strict=True)
    ]
    assert len(keyed) == len(dict(keyed)), "a row came twice"
    return dict(keyed)


@pytest.mark.slow
def test_two_engines_of_which_one_is_killed_give_the_rows_of_one_each_once(
    session: Session, tasks: list[Task], capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    engines = RayEngines(session, 2)
    results: list[Result] = []
    pids: list[int] = []
    try:
        for result in engines.run(tasks):
            results.append(result)
            if len(results) == 1:  # waits for the task that the other one is at
                pids = ray.get([actor.process_id.remote() for actor in engines._started])
            if len(results) == 3:  # tasks are handed out before a result is: both are at work
                os.kill(pids[0], signal.SIGKILL)
        assert ray.get(engines._started[0].process_id.remote()) not in pids
    finally:
        engines.close()
    said = capfd.readouterr().err
    assert "its engine was lost, 1 of 2 attempts are used" in said
    assert all(result.error is None for result in results) and len(results) == NUM_VARIANTS
    alone = rows(list(LocalEngine(session).run(tasks)))
    together = rows(results)
    assert together.keys() == alone.keys()
    equal = sum(together[key] == alone[key] for key in alone)
    print(f"{equal} of {len(alone)} texts are equal (one thread an engine against two)")
    assert equal > 0.9 * len(alone)


@pytest.mark.slow
def test_a_task_that_fails_twice_is_given_up_with_its_reason_and_the_others_go_on(session: Session, tasks: list[Task]) -> None:
    stray = Variant("stray", "another base", session.plan, tasks[0].variant.edit)
    bad = Task(stray, stray.hash, tasks[0].prompt_ids, tasks[0].prompts, tasks[0].sampling)
    first, failed, last = LocalEngine(session).run([tasks[0], bad, tasks[1]])
    assert first.error is None and len(last.generations) == NUM_PROMPTS
    assert failed.error == "EngineError: Variant stray was made from another base than the model in this engine."
    assert failed.generations == []


@pytest.mark.slow
def test_a_variant_that_fails_twice_is_marked_and_the_others_are_made(
    session: Session, tasks: list[Task], tmp_path: Path
) -> None:
    sources = (("last", 3),)
    good = Candidate(SINGLE, "good", sources, 1.0, tasks[0].variant)
    stray = Candidate(SINGLE, "stray", sources, 1.0, Variant("stray", "another base", session.plan, tasks[1].variant.edit))
    grid = Grid(session, {}, {})
    rollouts = Rollouts(session, RunDir(tmp_path, {"stages": {}}), LocalEngine(session), OfflineGrader())
    inputs = SweepInputs([], session.requests[:NUM_PROMPTS])
    search = Search(session, inputs, grid, rollouts)
    rollouts.make([grid.base(), stray, good], inputs.test, 8)
    assert rollouts.working([stray, good]) == [good] and len(rollouts.lengths) == 2 * NUM_PROMPTS
    rows = confirm_rows(search, [grid.base(), good, stray])
    assert [row.get("n") for row in rows] == [NUM_PROMPTS, NUM_PROMPTS, None]
    assert rows[2]["reason"] == "failed: EngineError: Variant stray was made from another base than the model in this engine."
    assert rows[1]["p_holm"] == rows[1]["p"]
    again = Rollouts(session, RunDir(tmp_path, {"stages": {}}), LocalEngine(session), OfflineGrader())
    assert again.lengths.keys() == rollouts.lengths.keys()
    for each in (rollouts, again):
        each.scoring.close()
