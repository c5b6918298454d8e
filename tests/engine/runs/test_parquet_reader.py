"""Damaged Parquet files: one message that names the file, whatever is wrong with it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import EngineError
from engine.runs.parquet_reader import count_rows, read_batches, read_table


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def scramble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4:60] = b"\xff" * 56
    file.write_bytes(content)


def no_text(file: Path) -> None:
    offsets = pa.array([0, 2], pa.int32()).buffers()[1]
    pq.write_table(pa.table({"judge": pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])}), file)


DAMAGE = {
    "cut": cut,
    "scrambled": scramble,
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("not a table"),
    "other columns": lambda file: pq.write_table(pa.table({"a": [1]}), file),
    "text that is no UTF-8": no_text,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"judge": [f"judge {number}" for number in range(500)]}), path, use_dictionary=False)
    return path


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_one_message_with_its_name(file: Path, damage: str) -> None:
    DAMAGE[damage](file)
    with pytest.raises(EngineError, match=r"^\S*scores.parquet .*Remove it and run again\.$"):
        read_table(file, ["judge"])


@pytest.mark.parametrize("damage", DAMAGE)
def test_so_is_one_that_is_read_in_batches(file: Path, damage: str) -> None:
    DAMAGE[damage](file)
    with pytest.raises(EngineError, match=r"^\S*scores.parquet .*Remove it and run again\.$"):
        list(read_batches(file, ["judge"], 100))


def test_rows_are_counted(file: Path) -> None:
    assert count_rows(file) == 500


def test_batches_are_the_table(file: Path) -> None:
    assert pa.Table.from_batches(read_batches(file, ["judge"], 100)).equals(read_table(file, ["judge"]))
