"""A checkpoint or LoRA of others as a variant: `[variant] checkpoint = DIR` in a TOML, through bin/rollout's own stages."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from editing.errors import EditError
from engine.checkpoints.export import write_variant
from engine.configs.load import config_toml, load_config
from engine.configs.schema import RunConfig
from engine.display.run_tables import summary_view
from engine.errors import EngineError
from engine.rollout.run import run
from engine.rollout.variants import variants_of
from engine.runs import parquet
from engine.runs.selection import with_selection
from engine.runs.session import Session
from engine.serving.checks import ServeOptions
from engine.serving.launch import prepare_swappable
from tests.edited import changed_copy
from tests.small_run import SmallReplica, config_of, make_inputs
from tests.tiny import save_tiny, save_tokenizer


def scaled(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor * 1.5 if name.endswith("v_proj.weight") else tensor


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    make_inputs(folder)
    changed_copy(folder / "model", folder / "theirs", scaled)
    text = config_toml(config_of(folder, given=False)).replace("[directions]", "[variant]\ncheckpoint = 'theirs'\n\n[directions]")
    (folder / "mine.toml").write_text(text)
    return folder


def config(work: Path) -> RunConfig:
    return load_config(str(work / "mine.toml"))


@pytest.fixture(scope="module")
def done(work: Path) -> dict[str, Any]:
    session = Session(config(work))
    session.use(SmallReplica())  # type: ignore[arg-type]
    return run(session.config, work / "run", session=session)


def test_the_path_is_relative_to_the_file(work: Path) -> None:
    assert config(work).checkpoint == str(work / "theirs")


def test_its_rows_say_that_it_is_a_checkpoint(work: Path, done: dict[str, Any]) -> None:
    assert {row["form"] for row in parquet.read_rows(work / "run" / "rollouts.parquet")} == {"base", "checkpoint"}


def test_no_directions_are_made_for_it(work: Path, done: dict[str, Any]) -> None:
    assert not (work / "run" / "directions.safetensors").exists()


def test_the_summary_says_what_it_is(done: dict[str, Any]) -> None:
    assert str(summary_view(done)[0]).endswith("a checkpoint of others")


def test_its_hash_is_that_of_its_weights(work: Path, tmp_path: Path, done: dict[str, Any]) -> None:
    moved = shutil.copytree(work / "theirs", tmp_path / "moved")
    there = Session(load_config(str(work / "mine.toml"), {"checkpoint": str(moved)})).replaced
    assert there.hash == done["figures"][-1]["variant_hash"]


def test_benchmarks_take_it_beside_the_base(work: Path) -> None:
    assert [variant.name for variant in variants_of([Session(config(work))])] == ["mine"]


def test_bin_edit_refuses_it(work: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="takes a variant with directions"):
        write_variant(config(work), tmp_path / "run", tmp_path / "out")


def test_bin_serve_refuses_it(work: Path) -> None:
    with pytest.raises(EngineError, match="bin/serve takes a variant with directions"):
        prepare_swappable([Session(config(work))], ServeOptions(port=0), None)


def test_a_sweep_refuses_it(work: Path) -> None:
    with pytest.raises(EngineError, match="a sweep or a study takes a variant with directions"):
        with_selection(config(work))


def test_a_folder_that_is_not_there_is_refused(work: Path) -> None:
    with pytest.raises(EngineError, match="Checkpoint folder nowhere does not exist"):
        Session(load_config(str(work / "mine.toml"), {"checkpoint": "nowhere"})).replaced  # noqa: B018 - it is made when asked


def test_another_architecture_is_refused_before_anything_is_written(work: Path, tmp_path: Path) -> None:
    other = save_tokenizer(save_tiny("qwen3", tmp_path / "qwen3"))
    with pytest.raises(EditError, match="another architecture"):
        run(load_config(str(work / "mine.toml"), {"checkpoint": str(other)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_beside_it_is_named(work: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text((work / "mine.toml").read_text().replace("checkpoint =", "chekpoint ="))
    with pytest.raises(EngineError, match=r"\[variant\] has the key chekpoint; expected checkpoint"):
        load_config(str(tmp_path / "bad.toml"))
