"""Rows on disk as they are made: Parquet shards, each renamed into place, merged into one file at the end.

A process that is killed loses at most the rows since the last shard; the next one reads which keys are there and makes
the others. No row is kept twice.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import EngineError

ROLLOUT_SCHEMA = pa.schema(
    [
        ("variant", pa.string()),
        ("variant_hash", pa.string()),
        ("prompt_id", pa.string()),
        ("split", pa.string()),
        ("kind", pa.string()),
        ("category", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("response_token_ids", pa.list_(pa.int32())),
        ("num_prompt_tokens", pa.int32()),
        ("num_output_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("sampling", pa.string()),
        ("seed", pa.int64()),
        ("engine", pa.string()),
        ("dtype", pa.string()),
        ("model", pa.string()),
        ("form", pa.string()),
    ]
)
LIKELIHOOD_SCHEMA = pa.schema([("variant_hash", pa.string()), ("prompt_id", pa.string()), ("mean_logprob", pa.float64())])
SCORE_SCHEMA = pa.schema(
    [
        ("variant_hash", pa.string()),
        ("prompt_id", pa.string()),
        ("judge", pa.string()),
        ("judge_model", pa.string()),
        ("rubric_hash", pa.string()),
        ("repeat", pa.int32()),
        ("compliance", pa.float64()),
        ("coherence", pa.float64()),
        ("declined", pa.bool_()),
        ("reason", pa.string()),
        ("raw_reply", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int32()),
        ("latency_ms", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost", pa.float64()),
    ]
)
Row = dict[str, Any]
FLUSH_ROWS, FLUSH_SECONDS = 128, 5.0
ROLLOUT_KEY = ("variant_hash", "prompt_id")


def key_of(row: Row, columns: Sequence[str] = ROLLOUT_KEY) -> tuple[Any, ...]:
    """What makes a row unique; a rollout's key by default."""
    return tuple(row[column] for column in columns)


class ShardedTable:
    """A growing Parquet table `path` of unique rows; `shards` beside it holds what is not merged yet."""

    def __init__(self, path: Path, schema: pa.Schema, key: Sequence[str] = ROLLOUT_KEY) -> None:
        self.path = path
        self.schema = schema
        self.key = list(key)
        self.shards = path.with_suffix(".shards")
        self._pending: list[Row] = []
        self._flushed = time.monotonic()

    def keys(self) -> set[tuple[Any, ...]]:
        """Keys of every row on disk."""
        return {key_of(row, self.key) for file in self._files() for row in read_rows(file, self.key)}

    def rows(self) -> list[Row]:
        """Every row on disk, once."""
        return list({key_of(row, self.key): row for file in self._files() for row in read_rows(file)}.values())

    def append(self, row: Row) -> None:
        """Add a row; it is on disk after at most FLUSH_ROWS rows or FLUSH_SECONDS."""
        self._pending.append(row)
        if len(self._pending) >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def extend(self, rows: Iterable[Row]) -> None:
        """Add rows that belong together: all of them are on disk, in one shard, or none."""
        self.flush()
        self._pending = list(rows)
        self.flush()

    def flush(self) -> None:
        """Write the pending rows as one shard."""
        if self._pending:
            self.shards.mkdir(parents=True, exist_ok=True)
            write_table(self.shards / f"{time.time_ns():020d}.parquet", self._pending, self.schema)
        self._pending = []
        self._flushed = time.monotonic()

    def merge(self, order: Callable[[Row], Any], keep: Callable[[Row], bool] = lambda row: True) -> None:
        """One file with every row that is kept, once, sorted by `order`; the shards are removed after it is in place."""
        self.flush()
        write_table(self.path, sorted(filter(keep, self.rows()), key=order), self.schema)
        shutil.rmtree(self.shards, ignore_errors=True)

    def _files(self) -> list[Path]:
        merged = [self.path] if self.path.exists() else []
        return [*merged, *sorted(self.shards.glob("*.parquet"))]


def write_table(path: Path, rows: Iterable[Row], schema: pa.Schema) -> None:
    """Write rows as a Parquet file by temporary name and rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary)
    temporary.rename(path)


def read_rows(path: Path, columns: list[str] | None = None) -> list[Row]:
    """Every row of a Parquet file. Raises EngineError where it cannot be read."""
    try:
        return list(pq.read_table(path, columns=columns).to_pylist())
    except pa.ArrowInvalid as error:
        raise EngineError(f"{path} cannot be read as Parquet ({error}). Remove it and run again.") from error
