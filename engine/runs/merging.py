"""Parquet files read as one table and merged in order, with a part of the rows in memory: what grows with them is their keys.

A row's place is its number over all files, in the order of the files. Of rows with one key the last place counts. A large merge
is a distribution sort: every row goes to the part of the result that it belongs to, then each part is sorted and written.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.runs.parquet_reader import named, open_file, read_table

PART_ROWS = 32_768  # of a merge, in memory at once; a response of 200 tokens takes some 2 kB
PLACE = "place"
Order = Mapping[str, Sequence[Any] | None]


def read_keys(files: Sequence[Path], columns: Sequence[str]) -> pa.Table:
    """Some columns of every row, with its place."""
    parts = []
    for file in files:
        parts.append(read_table(file, list(columns)))
    if not parts:
        return pa.table({PLACE: pa.array([], pa.int64())})
    table = pa.concat_tables(parts)
    return table.append_column(PLACE, pa.array(np.arange(table.num_rows)))


def unique_places(keys: pa.Table, key: Sequence[str]) -> np.ndarray:
    """Places of the rows that count, each key's last, ascending."""
    if not keys.num_rows:
        return np.zeros(0, np.int64)
    last = keys.group_by(list(key)).aggregate([(PLACE, "max")])
    return np.sort(last[f"{PLACE}_max"].to_numpy())


def batches(
    files: Sequence[Path], kept: np.ndarray, columns: Sequence[str] | None, size: int, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows at the places `kept` (ascending), at most `size` at a time; None for `columns` gives all of the schema's."""
    for batch, places in _placed(files, columns or schema.names, size, schema):
        begin, end = np.searchsorted(kept, [places.start, places.stop])
        if end - begin == len(batch):
            yield batch
        elif end > begin:
            yield batch.take(pa.array(kept[begin:end] - places.start))


def merge(files: Sequence[Path], out: Path, schema: pa.Schema, key: Sequence[str], order: Order, *, work: Path) -> None:
    """Write every key's last row to `out`, in order; `work` is a folder for what does not fit into memory."""
    keys = read_keys(files, list(dict.fromkeys([*key, *order])))
    places = ordered_places(keys, key, order)
    rank = np.full(keys.num_rows, -1, np.int64)
    rank[places] = np.arange(len(places))
    del keys, places
    shutil.rmtree(work, ignore_errors=True)  # of a merge that was killed
    with pq.ParquetWriter(out, schema, write_page_checksum=True) as writer:
        for table in _parts(files, rank, schema, work):
            writer.write_table(table)


def ordered_places(keys: pa.Table, key: Sequence[str], order: Order) -> np.ndarray:
    """Places of the rows that count, in the merged table's order."""
    if not keys.num_rows:
        return np.zeros(0, np.int64)
    there = keys.take(pa.array(unique_places(keys, key)))
    columns: dict[str, Any] = {PLACE: there[PLACE]}
    for name, values in order.items():
        if values is None:
            columns[f"{name} is there"] = pc.cast(pc.is_valid(there[name]), pa.int8())
            columns[name] = there[name]
        else:
            columns[name] = pc.index_in(there[name], pa.array(values, there.schema.field(name).type))
    table = pa.table(columns)
    for name in (name for name, values in order.items() if values is not None):
        table = table.filter(pc.is_valid(table[name]))
    indices = pc.sort_indices(table, [(name, "ascending") for name in table.column_names[1:]])
    return table[PLACE].take(indices).to_numpy()


def _parts(files: Sequence[Path], rank: np.ndarray, schema: pa.Schema, work: Path) -> Iterator[pa.Table]:
    """The merged table in consecutive parts; where there is more than one they pass through files in `work`."""
    count = -(-int(rank.max(initial=-1) + 1) // PART_ROWS)
    if count <= 1:
        yield _sorted([_with_rank(batch, rank[places.start : places.stop]) for batch, places in _read(files, schema)], schema)
        return
    work.mkdir(parents=True)
    _distribute(files, rank, schema, [work / f"{number}.arrow" for number in range(count)])
    for number in range(count):
        with pa.ipc.open_stream(work / f"{number}.arrow") as reader:
            part = list(reader)
        yield _sorted(part, schema)
    shutil.rmtree(work)


def _distribute(files: Sequence[Path], rank: np.ndarray, schema: pa.Schema, parts: Sequence[Path]) -> None:
    with ExitStack() as stack:
        ranked = schema.append(pa.field(PLACE, pa.int64()))
        writers = [stack.enter_context(pa.ipc.new_stream(part, ranked)) for part in parts]
        for batch, places in _read(files, schema):
            ranks = rank[places.start : places.stop]
            belongs = np.where(ranks < 0, -1, ranks // PART_ROWS)
            for number in np.unique(belongs[belongs >= 0]):
                chosen = np.flatnonzero(belongs == number)
                writers[number].write_batch(_with_rank(batch.take(pa.array(chosen)), ranks[chosen]))


def _read(files: Sequence[Path], schema: pa.Schema) -> Iterator[tuple[pa.RecordBatch, range]]:
    return _placed(files, schema.names, PART_ROWS, schema)


def _placed(
    files: Sequence[Path], columns: Sequence[str], size: int, schema: pa.Schema
) -> Iterator[tuple[pa.RecordBatch, range]]:
    """Batches of the files' rows with their places; a column that an earlier version did not write is null."""
    place = 0
    for file in files:
        with named(file), open_file(file) as parquet:
            for batch in parquet.iter_batches(size, columns=list(columns)):
                yield _filled(batch, columns, schema), range(place, place + len(batch))
                place += len(batch)


def _filled(batch: pa.RecordBatch, columns: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.names == list(columns):
        return batch
    there = {name: batch[name] for name in batch.schema.names}
    found = [there.get(name, pa.nulls(len(batch), schema.field(name).type)) for name in columns]
    return pa.RecordBatch.from_arrays(found, schema=pa.schema([schema.field(name) for name in columns]))


def _with_rank(batch: pa.RecordBatch, ranks: np.ndarray) -> pa.RecordBatch:
    return batch.append_column(PLACE, pa.array(ranks))


def _sorted(part: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """The rows of a part in the order of their ranks, without those that have none."""
    table = pa.Table.from_batches(part, schema.append(pa.field(PLACE, pa.int64())))
    table = table.filter(pc.greater_equal(table[PLACE], 0)).combine_chunks()
    return table.take(pc.sort_indices(table[PLACE])).select(schema.names)
