"""How a file takes its place: whole, or not at all."""

from pathlib import Path

import pytest

from engine.paths import copy_file, file_hash, hash_of, replace_atomically, shorten, write_json


def test_a_file_takes_its_place_when_the_block_ends(tmp_path: Path) -> None:
    with replace_atomically(tmp_path / "a") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_text() == "new"


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), replace_atomically(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "old"


def test_a_block_that_fails_leaves_nothing_beside_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replace_atomically(tmp_path / "a") as temporary:
        temporary.mkdir()
        (temporary / "part").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_its_place_too(tmp_path: Path) -> None:
    with replace_atomically(tmp_path / "a") as temporary:
        temporary.mkdir()
        (temporary / "part").write_text("whole")
    assert (tmp_path / "a" / "part").read_text() == "whole"


def test_a_copy_has_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\1")
    copy_file(tmp_path / "a", tmp_path / "b")
    assert file_hash(tmp_path / "b") == file_hash(tmp_path / "a")


def test_a_tables_hash_does_not_depend_on_the_order_of_its_keys() -> None:
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})


def test_a_files_hash_is_the_start_of_its_sha256(tmp_path: Path) -> None:
    """Of no bytes: e3b0c44298fc1c14..., FIPS 180-4."""
    (tmp_path / "empty").write_bytes(b"")
    assert file_hash(tmp_path / "empty") == shorten("e3b0c44298fc1c149afbf4c8996fb924")


def test_json_ends_with_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 1\n}\n'
