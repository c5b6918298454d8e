"""A table of our own is run end to end on a tiny model; the shipped tables are read, and what is not at hand is said."""

from pathlib import Path
from typing import Any

import pytest

from engine.compare.published import read_table, table_names
from engine.compare.reproduce import reproduce
from engine.configs.load import config_toml
from engine.configs.schema import RunConfig
from engine.errors import EngineError
from engine.rollout.run import run
from engine.runs.session import Session
from tests.small_run import SmallReplica, config_of, make_inputs

HEAD = 'title = "ours"\nsource = "a test"\nprotocol = "a run"\ndiffers = ["It does not."]\n'
FIGURE = '[[figures]]\nvariant = "{variant}"\nmeasure = "{measure}"\npublished = {value}\nform = "{form}"\n'


def run_small(config: RunConfig, path: Path) -> dict[str, Any]:
    session = Session(config)
    session.use(SmallReplica())  # type: ignore[arg-type]
    return run(session.config, path, session=session)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduced")
    make_inputs(folder)
    (folder / "mine.toml").write_text(config_toml(config_of(folder)))
    return folder


def table(work: Path, name: str, *figures: tuple[str, str, float]) -> str:
    rows = [FIGURE.format(variant="mine.toml", measure=measure, form=form, value=value) for measure, form, value in figures]
    (work / f"{name}.toml").write_text(HEAD + "".join(rows))
    return str(work / f"{name}.toml")


@pytest.fixture(scope="module")
def found(work: Path) -> dict[str, Any]:
    """A table whose figures are those of a run of its own, and one that is far from it."""
    truth = run_small(config_of(work), work / "runs" / "truth")
    base = next(row for row in truth["figures"] if row["form"] == "base" and row["kind"] == "declined")
    figures = (("declined", "base", base["declined"]["value"]), ("coherence", "base", 9.0), ("declined", "edited", 0.0))
    return reproduce(table(work, "ours", *figures), work / "runs", {}, run_one=run_small)


def test_a_figure_that_is_ours_is_inside_its_interval(found: dict[str, Any]) -> None:
    assert found["rows"][0]["the published is"] == "inside"


def test_a_figure_far_away_is_outside(found: dict[str, Any]) -> None:
    assert found["rows"][1]["the published is"] == "outside"


def test_ours_comes_with_its_interval(found: dict[str, Any]) -> None:
    assert found["rows"][0]["ours"]["low"] < found["rows"][0]["ours"]["high"]


def test_figures_of_one_variant_share_a_run(work: Path, found: dict[str, Any]) -> None:
    assert sorted(folder.name for folder in (work / "runs").iterdir() if not folder.name.startswith(".")) == ["mine", "truth"]


def test_why_they_may_differ_is_told(found: dict[str, Any]) -> None:
    assert found["differs"] == ["It does not."]


@pytest.mark.parametrize("name", table_names())
def test_every_shipped_table_is_read(name: str) -> None:
    assert read_table(name).figures


def test_a_table_without_weights_at_hand_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EngineError, match=r"None of the models of 'Llama-3\.2-3B: layers and subspaces' is at hand"):
        reproduce("llama32_3b_subspaces", tmp_path, {})


def test_an_unknown_table_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"Unknown table 'ardity'.*arditi"):
        reproduce("ardity", tmp_path, {})


def test_an_unknown_measure_is_named(work: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="measure 'charm' is not known"):
        reproduce(table(work, "bad", ("charm", "base", 0.5)), tmp_path, {})
