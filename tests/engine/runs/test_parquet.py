"""Sharded tables: rows survive a process that dies, each once."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import EngineError
from engine.runs.parquet import ShardedTable, read_rows
from engine.runs.schemas import LIKELIHOOD_SCHEMA


def row(number: int) -> dict[str, object]:
    return {"variant_hash": "v", "prompt_id": f"{number:03d}", "mean_logprob": float(number)}


def test_rows_of_a_process_that_died_are_kept_and_not_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    first = ShardedTable(path, LIKELIHOOD_SCHEMA)
    for number in (5, 3, 1):
        first.append(row(number))
    first.flush()
    first.append(row(2))  # never flushed: lost with the process
    second = ShardedTable(path, LIKELIHOOD_SCHEMA)
    assert second.keys() == {("v", "005"), ("v", "003"), ("v", "001")}
    for number in (2, 4):
        second.append(row(number))
    second.merge({"prompt_id": None})
    assert [r["prompt_id"] for r in read_rows(path)] == ["001", "002", "003", "004", "005"]
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


EARLIER = pa.schema([field for field in LIKELIHOOD_SCHEMA if field.name != "mean_logprob"])


def test_rows_of_a_version_that_lacked_a_column_are_read_with_nulls(tmp_path: Path) -> None:
    earlier = ShardedTable(tmp_path / "t.parquet", EARLIER)
    earlier.extend([{"variant_hash": "v", "prompt_id": "001"}])
    assert ShardedTable(tmp_path / "t.parquet", LIKELIHOOD_SCHEMA).rows() == [row(1) | {"mean_logprob": None}]


def test_they_are_merged_with_rows_of_today(tmp_path: Path) -> None:
    ShardedTable(tmp_path / "t.parquet", EARLIER).extend([{"variant_hash": "v", "prompt_id": "001"}])
    today = ShardedTable(tmp_path / "t.parquet", LIKELIHOOD_SCHEMA)
    today.append(row(2))
    today.merge({"prompt_id": None})
    assert [one["mean_logprob"] for one in read_rows(tmp_path / "t.parquet")] == [None, 2.0]


def test_a_merge_that_died_before_removing_its_shards_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = ShardedTable(path, LIKELIHOOD_SCHEMA)
    table.append(row(1))
    table.flush()
    shard = next(table.shards.iterdir())
    data = shard.read_bytes()
    table.merge({"prompt_id": None})
    table.shards.mkdir()
    shard.write_bytes(data)
    again = ShardedTable(path, LIKELIHOOD_SCHEMA)
    again.append(row(2))
    again.merge({"prompt_id": None})
    assert [r["prompt_id"] for r in read_rows(path)] == ["001", "002"]


def test_half_written_shards_are_not_read(tmp_path: Path) -> None:
    table = ShardedTable(tmp_path / "t.parquet", LIKELIHOOD_SCHEMA)
    table.append(row(1))
    table.flush()
    (table.shards / ".0.parquet.123").write_bytes(b"half")
    assert table.keys() == {("v", "001")}
    assert pq.read_schema(next(table.shards.glob("[0-9]*"))).names == LIKELIHOOD_SCHEMA.names


def filled(path: Path, *numbers: int, made_by: str = "a" * 16) -> ShardedTable:
    table = ShardedTable(path, LIKELIHOOD_SCHEMA, made_by=made_by)
    for number in numbers:
        table.extend([row(number)])
    return table


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: data.replace(b"001", b"009")])
def test_a_damaged_shard_is_set_aside_and_its_rows_are_asked_for_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    shard = min(filled(tmp_path / "t.parquet", 1, 2).shards.glob("*.parquet"))
    shard.write_bytes(damage(shard.read_bytes()))
    again = ShardedTable(tmp_path / "t.parquet", LIKELIHOOD_SCHEMA, made_by="a" * 16)
    assert again.keys() == {("v", "002")}
    assert [file.name.startswith(shard.name) for file in again.shards.glob("*.damaged-*")] == [True]


def test_a_shard_of_another_configuration_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "t.parquet", 1)
    with pytest.raises(EngineError, match=r"made under another configuration \(aaaa.*; this run's is bbbb"):
        ShardedTable(tmp_path / "t.parquet", LIKELIHOOD_SCHEMA, made_by="b" * 16).keys()


def test_shards_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    shard = next(filled(tmp_path / "t.parquet", 1).shards.glob("*.parquet"))
    shard.rename(shard.with_name("00000000000000000001.parquet"))
    again = filled(tmp_path / "t.parquet", 2)
    assert again.keys() == {("v", "001"), ("v", "002")}


def test_a_shard_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = list[str]()
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda number: (events.append("flush"), fsync(number))[1])
    monkeypatch.setattr(Path, "rename", lambda path, target: (events.append("rename"), rename(path, target))[1])
    filled(tmp_path / "t.parquet", 1)
    assert events == ["flush", "rename", "flush"]


def test_flipped_bytes_of_a_merged_table_are_noticed_wherever_they_are(tmp_path: Path) -> None:
    table = filled(tmp_path / "t.parquet", *range(40))
    table.merge({"prompt_id": None})
    data = table.path.read_bytes()
    pages = range(4, len(data) - int.from_bytes(data[-8:-4], "little") - 8)
    believed = []
    for place in pages:
        table.path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with contextlib.suppress(EngineError):
            found = [one["prompt_id"] for one in read_rows(table.path)]
            believed += [place] if found != [f"{number:03d}" for number in range(40)] else []
    assert believed == []
