"""--system: a text, or a file's."""

from pathlib import Path

import pytest

from engine.commands.cli import text_or_file, variant_overrides
from engine.errors import EngineError


def test_a_text_is_itself() -> None:
    assert variant_overrides(None, None, None, None, None, system="Be brief.") == {"data.system": "Be brief."}


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("\ufeffBe brief.\nAlways.\n", encoding="utf-8")
    assert text_or_file(str(tmp_path / "system.txt"), "--system") == "Be brief.\nAlways."


def test_a_long_text_is_no_files_name() -> None:
    assert text_or_file("word " * 2000, "--system") == "word " * 2000


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_bytes(b"caf\xe9")
    with pytest.raises(EngineError, match=r"--system .*system.txt is not UTF-8"):
        text_or_file(str(tmp_path / "system.txt"), "--system")
