"""How fast this machine was: what a job leaves, and the time that is told from it."""

from pathlib import Path

import pytest

from engine.paths import cache_dir, sealed, write_json
from engine.runs import timings
from engine.runs.session import Session
from tests import small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("inputs")
    small_run.make_inputs(made)
    return made


@pytest.fixture
def session(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))
    return Session(small_run.config_of(folder))


def test_a_job_is_told_by_what_ran_here(session: Session) -> None:
    timings.keep(session, timings.ROLLOUTS, 1000, 10.0)
    seconds, basis = timings.seconds_for(session, timings.ROLLOUTS, 5000)
    assert (seconds - timings.START[timings.ROLLOUTS], basis) == (50.0, timings.MEASURED)


def test_a_tiny_run_does_not_replace_a_large_one(session: Session) -> None:
    timings.keep(session, timings.ROLLOUTS, 1000, 10.0)
    timings.keep(session, timings.ROLLOUTS, 400, 40.0)
    assert timings.seconds_for(session, timings.ROLLOUTS, 1000)[0] == 10 + timings.START[timings.ROLLOUTS]


def test_a_later_run_of_its_size_does(session: Session) -> None:
    timings.keep(session, timings.ROLLOUTS, 1000, 10.0)
    timings.keep(session, timings.ROLLOUTS, 600, 12.0)
    assert timings.seconds_for(session, timings.ROLLOUTS, 1000)[0] == 20 + timings.START[timings.ROLLOUTS]


def test_another_model_is_told_by_its_size(session: Session, folder: Path, tmp_path: Path) -> None:
    timings.keep(session, timings.LIKELIHOODS, 1000, 10.0)
    other = Session(small_run.config_of(folder))
    other.__dict__["base_hash"] = "another"
    seconds, basis = timings.seconds_for(other, timings.LIKELIHOODS, 1000)
    assert (seconds, basis) == (10.0, timings.ROUGH)


def test_where_nothing_ran_a_product_of_matrices_tells(session: Session) -> None:
    once, basis = timings.seconds_for(session, timings.LIKELIHOODS, 1_000_000)
    assert basis == timings.ROUGH
    assert timings.seconds_for(session, timings.LIKELIHOODS, 2_000_000)[0] == pytest.approx(2 * once)


def test_a_damaged_file_is_made_again(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    timings.keep(session, timings.ROLLOUTS, 1000, 10.0)
    (cache_dir() / timings.FILE).write_text('{"timings": {}}')
    timings.keep(session, timings.ROLLOUTS, 10, 1.0)
    assert "damaged" in capsys.readouterr().err
    assert timings.seconds_for(session, timings.ROLLOUTS, 10)[1] == timings.MEASURED


def test_a_store_of_another_form_is_made_again(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    cache_dir().mkdir(parents=True, exist_ok=True)
    write_json(cache_dir() / timings.FILE, sealed({"timings": {}}))
    timings.keep(session, timings.ROLLOUTS, 10, 1.0)
    assert "of an earlier version" in capsys.readouterr().err
    assert timings.seconds_for(session, timings.ROLLOUTS, 10)[1] == timings.MEASURED
