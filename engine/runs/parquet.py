"""Rows on disk as they are made: Parquet shards, each renamed into place, merged into one file at the end.

A process that is killed loses at most the rows since the last shard; the next one reads which keys are there and makes
the others. No row is kept twice. Reading and merging hold some rows at a time, and of the rest their keys.

A shard's name holds the time, the hash of the configuration that made it, and the hash of its bytes. A damaged one is set
aside, so that its rows are made again; one of another configuration is an error.
"""

import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.display.progress import say
from engine.errors import EngineError
from engine.paths import file_hash, hash_of, replace_atomically, shorten, write_bytes
from engine.runs import merging, parquet_reader
from engine.runs.run_dir import set_aside
from engine.runs.schemas import ROLLOUT_KEY, Row

FLUSH_ROWS, FLUSH_SECONDS = 128, 5.0
ROWS_A_BATCH = 1024
# What repeats from row to row. A dictionary of all columns, Parquet's default, makes the writing of responses three times slower.
REPEATED = ("variant", "variant_hash", "split", "kind", "category", "finish_reason", "sampling", "engine", "model", "form")


def key_of(row: Mapping[str, Any], columns: Sequence[str] = ROLLOUT_KEY) -> tuple[Any, ...]:
    """A row's key, which makes it unique; a rollout's by default."""
    return tuple(row[column] for column in columns)


class ShardedTable:
    """A growing Parquet table `path` of unique rows; `shards` beside it holds what is not merged yet."""

    def __init__(self, path: Path, schema: pa.Schema, key: Sequence[str] = ROLLOUT_KEY, *, made_by: str | None = None) -> None:
        """`made_by` is the hash of the configuration that makes the rows; None where there is one alone."""
        self.path = path
        self.made_by = made_by or hash_of({})
        self.schema = schema
        self.key = list(key)
        self.shards = path.with_suffix(".shards")
        self._known: set[str] = set()  # shards that were looked at
        self._pending: list[Mapping[str, Any]] = []
        self._flushed = time.monotonic()

    def keys(self) -> set[tuple[Any, ...]]:
        """Keys of every row on disk."""
        return {key_of(row, self.key) for file in self.files() for row in read_rows(file, self.key)}

    def rows(self) -> list[Row]:
        """Every row on disk, once; all of them in memory."""
        return [row for batch in self.batches() for row in batch.to_pylist()]

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Every row on disk, once, some at a time: of rows with one key that of the latest shard."""
        files = self.files()
        kept = merging.unique_places(merging.read_keys(files, self.key), self.key)
        return merging.batches(files, kept, columns, ROWS_A_BATCH, self.schema)

    def where(self, column: str, values: Sequence[Any], columns: Sequence[str]) -> pa.Table:
        """Rows whose `column` has one of the values, once, with their keys. Files without any are skipped by their statistics."""
        import pyarrow.dataset as ds

        names = list(dict.fromkeys([*self.key, *columns]))
        with parquet_reader.named(self.path):
            found = ds.dataset([str(file) for file in self.files()], schema=self.schema, format=_checked_format()).to_table(
                columns=names, filter=ds.field(column).isin(list(values)), use_threads=False
            )
        places = pa.array(range(found.num_rows), pa.int64())
        return found.take(merging.unique_places(found.append_column(merging.PLACE, places), self.key))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; it is on disk after at most FLUSH_ROWS rows or FLUSH_SECONDS."""
        self._pending.append(row)
        if len(self._pending) >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def extend(self, rows: Iterable[Mapping[str, Any]] | pa.Table) -> None:
        """Add rows that belong together: all of them are on disk, in one shard, or none."""
        self.flush()
        self._write(rows)

    def _write(self, rows: Iterable[Mapping[str, Any]] | pa.Table) -> None:
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=self.schema)
        if table.num_rows:
            self.shards.mkdir(parents=True, exist_ok=True)
            data = _as_parquet(table, self.schema)
            name = f"{time.time_ns():020d}-{self.made_by}-{shorten(hashlib.sha256(data).hexdigest())}.parquet"
            write_bytes(self.shards / name, data)
            self._known.add(name)
        self._flushed = time.monotonic()

    def flush(self) -> None:
        """Write the pending rows as one shard. They stay pending where that fails."""
        self._flushed = time.monotonic()
        if self._pending:
            self._write(self._pending)
            self._pending = []

    def merge(self, order: Mapping[str, Sequence[Any] | None]) -> None:
        """One file with every row once, sorted by the columns of `order`; the shards are removed after it is in place.

        A list gives a column's values in their order, and rows with others are left out; None is the natural order, nulls first.
        """
        self.flush()
        self.shards.mkdir(parents=True, exist_ok=True)
        with replace_atomically(self.path) as temporary:
            merging.merge(self.files(), temporary, self.schema, self.key, order, work=self.shards / ".merge")
        shutil.rmtree(self.shards, ignore_errors=True)

    def files(self) -> list[Path]:
        """The merged table, where there is one, then the whole shards in the order they came.

        Raises EngineError for a shard of another configuration.
        """
        merged = [self.path] if self.path.exists() else []
        for shard in sorted(self.shards.glob("*.parquet")):
            if shard.name not in self._known:
                self._look_at(shard)
        return [*merged, *sorted(self.shards.glob("*.parquet"))]

    def _look_at(self, shard: Path) -> None:
        _, *told = shard.stem.split("-")
        if len(told) == 2 and told[0] != self.made_by:
            raise EngineError(
                f"{shard} was made under another configuration ({told[0]}; this run's is {self.made_by}): another process wrote "
                "here. Remove that file and run again, or give --clean."
            )
        if is_whole_shard(shard):
            self._known.add(shard.name)
        else:
            say(f"rows: {shard.name} is damaged; set aside as {set_aside(shard).name}, and its rows are made again")


def is_whole_shard(shard: Path) -> bool:
    """Whether a shard is what was written: by the hash in its name, or by reading it where an earlier version left it."""
    if not shard.is_file():
        return False
    _, *told = shard.stem.split("-")
    if told:
        return file_hash(shard) == told[-1]
    try:
        parquet_reader.read_table(shard)
    except EngineError:
        return False
    return True


def _as_parquet(table: pa.Table, schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_options(schema))
    return bytes(sink.getvalue())


def _options(schema: pa.Schema) -> dict[str, Any]:
    return {"use_dictionary": [name for name in REPEATED if name in schema.names], "write_page_checksum": True}


def _checked_format() -> Any:
    import pyarrow.dataset as ds

    return ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True))


def write_table(path: Path, rows: Iterable[Mapping[str, Any]] | pa.Table, schema: pa.Schema) -> None:
    """Write rows as a Parquet file atomically."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    with replace_atomically(path) as temporary:
        pq.write_table(table, temporary, **_options(schema))


def writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of a table in parts, to be used as a context."""
    return pq.ParquetWriter(path, schema, write_page_checksum=True)


def read_rows(path: Path, columns: list[str] | None = None) -> list[Row]:
    """Every row of a Parquet file. Raises EngineError where it cannot be read."""
    return list(parquet_reader.read_table(path, columns).to_pylist())
