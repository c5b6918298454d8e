"""The one reader of our Parquet files: damage is one message that names the file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import EngineError
from engine.runs.manifest import check_regular


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Raise EngineError with the file's name for one that is no Parquet, or a damaged one."""
    try:
        check_regular(path)
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError(f"{path} cannot be read as Parquet ({said}). Remove it and run again.") from error


def read_table(path: Path, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
    """A Parquet file's columns. Raises EngineError for a damaged file, and for one without a column."""
    with _opened(path, columns):
        wanted = None if columns is None else list(columns)
        table = pq.read_table(path, columns=wanted, page_checksum_verification=True, **options)
        table.validate(full=True)  # pyarrow reads texts that are no UTF-8, and fails where they are used
        return table


def read_batches(
    path: Path, columns: Sequence[str] | None, size: int, dictionaries: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """A file's columns, at most `size` rows at a time; `dictionaries` are columns whose values are numbered."""
    with _opened(path, columns), open_file(path, dictionaries) as file:
        for batch in file.iter_batches(size, columns=None if columns is None else list(columns)):
            batch.validate(full=True)
            yield batch


def open_file(path: Path, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
    """A Parquet file whose pages are checked against their checksums as they are read. Open it within `named`."""
    return pq.ParquetFile(path, read_dictionary=list(dictionaries), page_checksum_verification=True)


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file."""
    with named(path):
        return list(pq.read_schema(path).names)


def count_rows(path: Path) -> int:
    """Rows of a Parquet file."""
    with _opened(path):
        return int(pq.read_metadata(path).num_rows)


@contextmanager
def _opened(path: Path, columns: Sequence[str] | None = None) -> Iterator[None]:
    with named(path):
        there = set(pq.read_schema(path).names) if columns else set()
        if absent := [name for name in columns or () if name not in there]:
            raise EngineError(f"{path} has no column '{absent[0]}', so it is not one of ours. Remove it and run again.")
        yield
