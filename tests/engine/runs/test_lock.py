"""One owner of a run directory: whoever comes second is refused, with and without --clean, and nothing of the first is lost."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.runs import lock
from engine.runs.lock import lock_file, locked
from engine.runs.run_dir import open_run_dir

IDENTITY = {"config": {"sampling": {"seed": 0}}, "base_hash": "x"}
OTHER = {"config": {"sampling": {"seed": 1}}, "base_hash": "x"}
OPENER = "import sys, pathlib; from engine.runs.run_dir import open_run_dir; from engine.errors import EngineError\n"
OPENER += "try: open_run_dir(pathlib.Path(sys.argv[1]), {'config': {'a': 1}, 'base_hash': 'y'}, clean=sys.argv[2] == 'clean')\n"
OPENER += "except EngineError as error: sys.exit(str(error))"


def open_elsewhere(path: Path, clean: str) -> str:
    done = subprocess.run([sys.executable, "-c", OPENER, str(path), clean], capture_output=True, text=True, check=False)
    return done.stderr


@pytest.mark.parametrize("clean", ["clean", "keep"])
def test_another_process_is_refused_and_told_who_works_there(tmp_path: Path, clean: str) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY)
    (tmp_path / "run" / "rollouts.parquet").write_text("rows")
    with run_dir.locked():
        said = open_elsewhere(tmp_path / "run", clean)
    expected = (
        f"Another process is at work in {tmp_path}/run (process {os.getpid()} on" if clean == "clean" else "made under another"
    )
    assert expected in said
    assert (tmp_path / "run" / "rollouts.parquet").read_text() == "rows"
    assert run_dir.manifest["identity"] == IDENTITY


def test_the_lock_is_not_in_what_clean_empties(tmp_path: Path) -> None:
    run_dir = open_run_dir(tmp_path / "run", IDENTITY)
    assert lock_file(tmp_path / "run").parent == tmp_path
    with run_dir.locked(), pytest.raises(EngineError, match="Another process"):
        open_run_dir(tmp_path / "run", OTHER, clean=True)


def test_a_run_that_was_made_anew_before_the_lock_was_taken_is_not_worked_in(tmp_path: Path) -> None:
    first = open_run_dir(tmp_path / "run", IDENTITY)
    open_run_dir(tmp_path / "run", OTHER, clean=True)
    with pytest.raises(EngineError, match=r"Another process made .* anew meanwhile"), first.locked():
        pass


def test_what_another_process_left_in_the_manifest_is_known_once_the_lock_is_held(tmp_path: Path) -> None:
    first, second = (open_run_dir(tmp_path / "run", IDENTITY) for _ in range(2))
    with second.locked():
        second.run_stage("s", lambda: None)
    with first.locked():
        assert "s" in first.manifest["stages"]


def test_a_lock_that_was_removed_is_taken_anew(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        lock_file(tmp_path / "run").unlink()
    with locked(tmp_path / "run"), pytest.raises(EngineError), locked(tmp_path / "run"):
        pass


def test_a_lock_is_never_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    lock_file(tmp_path / "run").symlink_to(tmp_path / "mine")
    with pytest.raises(EngineError, match="is a link"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_disk_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(number: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "run"):
        pass
    assert "cannot be locked against other machines: its disk takes none (No locks available)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mount", "told"),
    [
        ("nfs4 rw,local_lock=all", "local_lock=all"),
        ("nfs rw,local_lock=none", None),
        ("ext4 rw", None),
        ("lustre rw,flock", None),
    ],
)
def test_a_mount_whose_locks_are_this_machines_alone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: str, told: str | None
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: f"dev / ext4 rw 0 0\nhost:/x {tmp_path} {mount} 0 0\n")
    found = lock._local_mount(tmp_path / ".run.lock")
    assert found == (told and f"it is mounted with {told}")


def test_clean_keeps_an_inner_lock_and_removes_the_rest(tmp_path: Path) -> None:
    for name in (lock.INSIDE, "a", "folder/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    lock.empty(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [lock.INSIDE]
