"""Table files as people have them: one reader for each form, and with each row the line or the number it stands at.

JSON, JSONL, CSV, TSV, text and Parquet; the text forms may be gzipped. What a row means is `extraction.prompts`' matter, or
that of who reads labels.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from extraction.errors import ExtractionError

GZIP = ".gz"


@dataclass(frozen=True)
class Row:
    """One row of a file as the file has it: a text, a list or an object.

    where: the file's name, and the row's line or number from 1, for messages.
    """

    value: Any
    where: str


def load_rows(path: Path) -> list[Row]:
    """Rows of a table file. Raises ExtractionError for one that is not there, not readable, of another form or empty."""
    if not path.is_file():
        raise ExtractionError(f"{path} does not exist.")
    rows = list(_reader_of(path)(path))
    if not rows:
        raise ExtractionError(f"{path.name} holds no prompts.")
    return rows


def kind_of(value: Any) -> str:
    """What a JSON value is, in words for messages; never the value, which may be long or nested."""
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(type(value), type(value).__name__)


def is_missing(value: Any) -> bool:
    """True for null, an empty text, and NaN, which pandas writes for a missing value."""
    return value is None or value == "" or (isinstance(value, float) and value != value)


def _reader_of(path: Path) -> Callable[[Path], Iterable[Row]]:
    name = path.name.lower()
    suffix = Path(name.removesuffix(GZIP)).suffix
    if suffix not in READERS or (name.endswith(GZIP) and suffix == ".parquet"):
        forms = ", ".join(READERS)
        raise ExtractionError(f"{path.name}: expected a file that ends in {forms}, or a text form with {GZIP}; found '{suffix}'.")
    return READERS[suffix]


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    if path.name.lower().endswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ExtractionError(f"{path.name} is not readable as gzip ({error}). Copy or download it again.") from error
    try:
        text = data.decode("utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise ExtractionError(f"{path.name} is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    if "\0" in text:
        raise ExtractionError(f"{path.name} holds NUL characters, as UTF-16 read as UTF-8 does. Save it as UTF-8.")
    return text


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each with its place. Not splitlines: a text may hold other line separators."""
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if line.strip():
            yield line.removesuffix("\r"), f"{path.name}, line {number}"


def _read_lines(path: Path) -> Iterator[Row]:
    return (Row(line, where) for line, where in _lines(path))


def _read_jsonl(path: Path) -> Iterator[Row]:
    return (Row(_parse_json(line, where), where) for line, where in _lines(path))


def _read_json(path: Path) -> Iterable[Row]:
    if _holds_lines(path):
        return _read_jsonl(path)
    rows = _parse_json(_read_text(path), path.name)
    if not isinstance(rows, list):
        raise ExtractionError(f"{path.name}: expected a JSON list at the top, found {kind_of(rows)}.")
    return [Row(row, f"{path.name}, row {number}") for number, row in enumerate(rows, 1)]


def _holds_lines(path: Path) -> bool:
    """True for a .json file that is JSONL: its first line is an object, and another line follows."""
    lines = [line for line, _ in _lines(path)][:2]
    if len(lines) < 2 or not lines[0].lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        return False


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ExtractionError(f"{where}: nested too deeply. Expected a text, a list or an object of texts.") from error
    except ValueError as error:  # broken JSON, and numbers of thousands of digits
        raise ExtractionError(f"{where}: not valid JSON ({error}).") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _read_csv(path: Path) -> Iterator[Row]:
    return _read_cells(path, ",")


def _read_tsv(path: Path) -> Iterator[Row]:
    return _read_cells(path, "\t")


def _read_cells(path: Path, delimiter: str) -> Iterator[Row]:
    """Rows as objects by the first line's names. `strict`: a quote that is out of place would swallow cells or lines."""
    csv.field_size_limit(1 << 30)
    lines = csv.reader(io.StringIO(_read_text(path), newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        names = [name.strip() for name in next(lines, [])]
        _check_names(names, path.name)
        line = lines.line_num + 1
        for cells in lines:
            if len(cells) > len(names):
                raise ExtractionError(_too_many(f"{path.name}, line {line}", len(cells), names))
            if cells:
                yield Row(dict(zip_longest(names, cells)), f"{path.name}, line {line}")
            line = lines.line_num + 1
    except csv.Error as error:
        form = "CSV" if delimiter == "," else "TSV"
        raise ExtractionError(
            f"{path.name}, line {line}: not readable as {form} ({error}). Quote a cell whole, and double a quote inside it."
        ) from error


def _too_many(where: str, count: int, names: Sequence[str]) -> str:
    return (
        f"{where}: {count} cells, but the first line names {len(names)} columns ({', '.join(names)}). "
        "Put quotes around a cell that holds the separator."
    )


def _check_names(names: Sequence[str], where: str) -> None:
    named = [name for name in names if name]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise ExtractionError(f"{where}: two columns are called {twice[0]}. Rename one.")


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read()
        _check_names(table.column_names, path.name)
        rows = table.to_pylist()
    except (pyarrow.lib.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ExtractionError(f"{path.name}: not a readable Parquet file ({_first_line(error)}).") from error
    return (Row(row, f"{path.name}, row {number}") for number, row in enumerate(rows, 1))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


READERS: dict[str, Callable[[Path], Iterable[Row]]] = {
    ".txt": _read_lines,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
