"""Run directories: stages are done once, and no directory is reused under another configuration."""

from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.rundir import open_run_dir

IDENTITY = {"config": {"sampling": {"seed": 0}, "description": "a"}, "base_hash": "x"}


def test_a_stage_runs_again_only_for_other_inputs_or_missing_outputs(tmp_path: Path) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY, {})
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        run_dir.file("out").write_text("done")

    def stage(inputs: dict[str, int]) -> bool:
        return open_run_dir(tmp_path / "run", IDENTITY, {}).run_stage("s", inputs, ["out"], work)

    assert [stage({"a": 1}), stage({"a": 1}), stage({"a": 2})] == [True, False, True]
    run_dir.file("out").unlink()
    assert stage({"a": 2}) and len(calls) == 3


def test_a_stage_that_fails_is_not_done(tmp_path: Path) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY, {})
    run_dir.file("out").write_text("half")
    with pytest.raises(ZeroDivisionError):
        run_dir.run_stage("s", {}, ["out"], lambda: print(1 / 0))
    assert "s" not in run_dir.manifest["stages"]


def test_another_configuration_is_refused_with_the_keys_and_the_ways_out(tmp_path: Path) -> None:
    open_run_dir(tmp_path / "run", IDENTITY, {})
    other = {"config": {"sampling": {"seed": 1}, "description": "b"}, "base_hash": "y"}
    with pytest.raises(EngineError) as caught:
        open_run_dir(tmp_path / "run", other, {})
    message = str(caught.value)
    assert "config.sampling.seed: 0 -> 1" in message and "base_hash: 'x' -> 'y'" in message
    assert "--clean" in message and "--out DIR" in message and "description" not in message
    run_dir = open_run_dir(tmp_path / "run", other, {}, clean=True)
    assert run_dir.manifest["identity"] == other


@pytest.mark.parametrize("clean", [False, True])
def test_a_folder_that_is_not_ours_is_never_touched(tmp_path: Path, clean: bool) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EngineError, match="is not a run directory of ours"):
        open_run_dir(tmp_path, IDENTITY, {}, clean=clean)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
