"""Sharded tables: rows survive a process that dies, each once."""

from pathlib import Path

import pyarrow.parquet as pq

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
