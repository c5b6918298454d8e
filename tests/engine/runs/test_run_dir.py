"""Run directories: stages are done once, and no directory is reused under another configuration."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.paths import hash_of
from engine.runs.files import SWEEP_RUN
from engine.runs.manifest import read_manifest
from engine.runs.run_dir import RunDir, open_for_directions, open_run_dir

IDENTITY = {"config": {"sampling": {"seed": 0}, "description": "a"}, "base_hash": "x"}


def test_a_stage_runs_again_only_for_other_inputs_or_missing_outputs(tmp_path: Path) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY)
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        run_dir.file("out").write_text("done")

    def stage(inputs: dict[str, int]) -> bool:
        return open_run_dir(tmp_path / "run", IDENTITY).run_stage("s", work, settings=inputs, writes=["out"])

    assert [stage({"a": 1}), stage({"a": 1}), stage({"a": 2})] == [True, False, True]
    run_dir.file("out").unlink()
    assert stage({"a": 2}) and len(calls) == 3


def test_a_stage_that_fails_is_not_done(tmp_path: Path) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY)
    run_dir.file("out").write_text("half")
    with pytest.raises(ZeroDivisionError):
        run_dir.run_stage("s", lambda: print(1 / 0), writes=["out"])
    assert "s" not in run_dir.manifest["stages"]


def test_another_configuration_is_refused_with_the_keys_and_the_ways_out(tmp_path: Path) -> None:
    open_run_dir(tmp_path / "run", IDENTITY)
    other = {"config": {"sampling": {"seed": 1}, "description": "b"}, "base_hash": "y"}
    with pytest.raises(EngineError) as caught:
        open_run_dir(tmp_path / "run", other)
    message = str(caught.value)
    assert "config.sampling.seed: 0 -> 1" in message and "base_hash: 'x' -> 'y'" in message
    assert "--clean" in message and "--out DIR" in message and "description" not in message
    run_dir = open_run_dir(tmp_path / "run", other, clean=True)
    assert run_dir.manifest["identity"] == other


@pytest.mark.parametrize("clean", [False, True])
def test_a_folder_that_is_not_ours_is_never_touched(tmp_path: Path, clean: bool) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EngineError, match="is not a run directory of ours"):
        open_run_dir(tmp_path, IDENTITY, clean=clean)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": "refusal-run/1", "identity": {}, "stages": {}}'])
@pytest.mark.parametrize("clean", [False, True])
def test_a_broken_manifest_is_named_and_nothing_is_removed(tmp_path: Path, content: str, clean: bool) -> None:
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "rollouts.parquet").write_text("rows")
    with pytest.raises(EngineError, match="cannot be read as a run's"):
        open_run_dir(tmp_path, IDENTITY, clean=clean)
    assert (tmp_path / "rollouts.parquet").exists()


def test_a_run_killed_at_its_first_write_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / ".manifest.json.4711").write_text("{")
    assert open_run_dir(tmp_path, IDENTITY).manifest["stages"] == {}


def test_two_processes_do_not_work_in_one_directory(tmp_path: Path) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY)
    with run_dir.locked(), pytest.raises(EngineError, match="Another process is at work"), run_dir.locked():
        pass
    with run_dir.locked():
        pass


def test_a_stage_records_what_made_it_and_reading_changes_nothing(tmp_path: Path) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY)
    run_dir.run_stage("s", lambda: None)
    assert {"versions", "hardware", "commit"} <= run_dir.manifest["stages"]["s"].keys()
    before = run_dir.file("manifest.json").stat().st_mtime_ns
    open_run_dir(tmp_path / "run", IDENTITY)
    assert run_dir.file("manifest.json").stat().st_mtime_ns == before


def test_directions_of_a_run_serve_whatever_else_it_was_configured_to_do(tmp_path: Path) -> None:
    def identity(seed: int = 0, base: str = "x", position: str = "last") -> dict[str, Any]:
        directions = {"position": position, "estimator": "mean_difference", "layers": [seed]}
        config = {"sampling": {"seed": seed}, "model": {"path": "m", "dtype": "bfloat16"}, "data": {"num_pairs": None}}
        return {"config": {**config, "directions": directions}, "base_hash": base, "data_hashes": {"train_pairs": "p"}}

    open_run_dir(tmp_path / "run", identity())
    assert open_for_directions(tmp_path / "run", identity(seed=9)).manifest["identity"] == identity()
    for other, key in ((identity(base="y"), "base_hash"), (identity(position="response"), "directions.position")):
        with pytest.raises(EngineError, match=rf"holds or awaits other directions:\n.*{key}"):
            open_for_directions(tmp_path / "run", other)
    sweep = identity()
    del sweep["config"]["directions"]
    open_run_dir(tmp_path / "sweep", sweep, kind=SWEEP_RUN)
    with pytest.raises(EngineError, match="is a sweep's directory, which has directions of its own"):
        open_for_directions(tmp_path / "sweep", identity())


def finished(path: Path) -> RunDir:
    run_dir = open_run_dir(path, IDENTITY)
    run_dir.run_stage("s", lambda: run_dir.file("out").write_text("done"), writes=["out"])
    return run_dir


@pytest.mark.parametrize("damage", ["", "don", "dOne", "done and more"])
def test_a_stage_is_skipped_only_where_its_files_are_what_it_wrote(tmp_path: Path, damage: str) -> None:
    run_dir = finished(tmp_path / "run")
    run_dir.file("out").write_text(damage)
    again = open_run_dir(tmp_path / "run", IDENTITY)
    assert again.run_stage("s", lambda: again.file("out").write_text("done"), writes=["out"])
    assert [file.read_text() for file in run_dir.path.glob("out.damaged-*")] == [damage]


def test_a_damaged_file_that_a_stage_reads_stops_it_by_name(tmp_path: Path) -> None:
    run_dir = finished(tmp_path / "run")
    run_dir.file("out").write_text("doNe")
    with pytest.raises(EngineError, match=r"out is not what 's' wrote: it is damaged"):
        run_dir.run_stage("t", lambda: None, reads=["out"])


def test_a_stage_that_is_killed_leaves_nothing_that_counts(tmp_path: Path) -> None:
    run_dir = finished(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run_dir.run_stage("s", lambda: raise_(KeyboardInterrupt()), settings={"a": 1}, writes=["out"])
    found = read_manifest(tmp_path / "run")
    assert (found["stages"], found["files"]) == ({}, {})


def raise_(error: BaseException) -> None:
    raise error


def test_a_file_that_two_stages_write_is_known_as_it_was_left_last(tmp_path: Path) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY)
    for name in ("one", "two"):
        run_dir.run_stage(name, lambda name=name: run_dir.file("out").write_text(name), writes=["out"])
    assert not run_dir.run_stage("one", lambda: raise_(AssertionError()), writes=["out"])


def test_a_run_of_before_files_had_hashes_is_taken_for_what_it_is(tmp_path: Path) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY)
    run_dir.file("summary.json").write_text("{}")
    earlier = {"format": "refusal-run/1", "kind": "run", "identity": IDENTITY, "stages": {"s": {"inputs_hash": hash_of({})}}}
    run_dir.file("manifest.json").write_text(json.dumps(earlier))
    again = open_run_dir(tmp_path / "run", IDENTITY)
    assert not again.run_stage("s", lambda: raise_(AssertionError()), writes=["summary.json"])
    with again.locked():
        assert again.manifest["format"] == "refusal-run/2"
        assert again.manifest["files"]["summary.json"]["bytes"] == 2


def test_a_manifest_of_a_newer_version_is_refused_by_its_format(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": "refusal-run/3"}')
    with pytest.raises(EngineError, match="format is 'refusal-run/3', expected 'refusal-run/2' or older"):
        open_run_dir(tmp_path, IDENTITY)


def test_a_manifest_that_was_changed_is_noticed(tmp_path: Path) -> None:
    file = finished(tmp_path / "run").file("manifest.json")
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(EngineError, match="not what was written there"):
        open_run_dir(tmp_path / "run", IDENTITY)


def test_temporary_files_of_killed_processes_go_when_the_lock_is_taken(tmp_path: Path) -> None:
    run_dir = finished(tmp_path / "run")
    run_dir.file(".report.html.0123456789abcdef.tmp").write_text("half")
    with run_dir.locked():
        assert sorted(file.name for file in run_dir.path.iterdir()) == ["manifest.json", "out"]


def test_a_finished_run_is_read_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path / "run")

    def refuse(*arguments: object, **options: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    run_dir = open_run_dir(tmp_path / "run", IDENTITY)
    with run_dir.locked():
        assert run_dir.manifest["stages"]
