"""Prompt files: pairs (a declined and an answered request) and plain lists.

Reads the study's JSON forms, `[[declined, answered], ...]` and `[prompt, ...]`, and JSONL, CSV and Parquet with named
columns. Knows nothing of tokenizers or models. `embedded:NAME` names a file that ships with the project.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction.errors import ExtractionError

EMBEDDED_DIR = Path(__file__).parent / "data"
EMBEDDED_PREFIX = "embedded:"
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Pair:
    """A request that the model declines and its twin that it answers. `category` is free text, "" where unknown."""

    declined: str
    answered: str
    category: str = ""


@dataclass(frozen=True)
class Prompt:
    """One request. `category` is free text, "" where the file has none."""

    text: str
    category: str = ""


def load_pairs(source: str | Path) -> list[Pair]:
    """Pairs of a file: JSON rows [declined, answered], or rows with columns declined, answered and, optionally, category.

    Raises ExtractionError for an unreadable file, a row of another shape or an empty text, with the row's index.
    """
    path = resolve(source)
    return [_as_pair(row, f"{path.name}, row {index}") for index, row in enumerate(load_rows(path))]


def load_prompts(source: str | Path) -> list[Prompt]:
    """Prompts of a file: JSON strings, or rows with columns prompt and, optionally, category. Errors as `load_pairs`."""
    path = resolve(source)
    return [_as_prompt(row, f"{path.name}, row {index}") for index, row in enumerate(load_rows(path))]


def take(items: Sequence[Any], count: int | None, source: str) -> list[Any]:
    """First `count` items, all where it is None. Raises ExtractionError where there are fewer: no short list in silence."""
    if count is not None and count > len(items):
        raise ExtractionError(f"{source} holds {len(items)} prompts; {count} were asked for. Lower the number or add prompts.")
    return list(items[:count])


def resolve(source: str | Path) -> Path:
    """Path of a prompt source: a path, or `embedded:NAME` for a file of extraction/data.

    Raises ExtractionError where there is no such file.
    """
    text = str(source)
    if not text.startswith(EMBEDDED_PREFIX):
        path = Path(text).expanduser()
        if not path.is_file():
            raise ExtractionError(f"Prompt file {text} does not exist. Give a path, or one of {_embedded_names()}.")
        return path
    path = EMBEDDED_DIR / f"{text.removeprefix(EMBEDDED_PREFIX)}.jsonl"
    if not path.is_file():
        raise ExtractionError(f"There is no embedded prompt file {text}; there are {_embedded_names()}.")
    return path


def _embedded_names() -> str:
    return ", ".join(EMBEDDED_PREFIX + path.stem for path in sorted(EMBEDDED_DIR.glob("*.jsonl")))


def load_rows(path: Path) -> list[Any]:
    """Rows of a table file, as they are. Raises ExtractionError for one that is not there, not readable or empty."""
    if not path.is_file():
        raise ExtractionError(f"{path} does not exist.")
    readers = {".json": _read_json, ".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ExtractionError(f"{path.name}: a prompt file ends in one of {', '.join(SUFFIXES)}; found '{path.suffix}'.")
    rows = list(readers[path.suffix](path))
    if not rows:
        raise ExtractionError(f"{path.name} holds no prompts.")
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise ExtractionError(f"{path.name} is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from error


def _read_json(path: Path) -> list[Any]:
    rows = _parse_json(_read_text(path), path.name)
    if not isinstance(rows, list):
        raise ExtractionError(f"{path.name}: expected a JSON list at the top, found {_kind(rows)}.")
    return rows


def _read_jsonl(path: Path) -> Iterable[Any]:
    lines = _read_text(path).split("\n")  # not splitlines: a string may hold other line separators
    return [_parse_json(line, f"{path.name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ExtractionError(f"{where}: not valid JSON ({error}).") from error


def _read_csv(path: Path) -> Iterable[Any]:
    csv.field_size_limit(1 << 30)
    try:
        return list(csv.DictReader(io.StringIO(_read_text(path), newline="")))
    except csv.Error as error:
        raise ExtractionError(f"{path.name}: not readable as CSV ({error}).") from error


def _read_parquet(path: Path) -> Iterable[Any]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.lib.ArrowException as error:
        raise ExtractionError(f"{path.name}: not a readable Parquet file ({error}).") from error


def _as_pair(row: Any, where: str) -> Pair:
    if isinstance(row, list):
        if len(row) != 2:
            raise ExtractionError(f"{where}: expected [declined, answered], found a list of {len(row)}.")
        row = {"declined": row[0], "answered": row[1]}
    columns = _columns(row, ("declined", "answered"), where)
    return Pair(columns["declined"], columns["answered"], _category(row))


def _as_prompt(row: Any, where: str) -> Prompt:
    if isinstance(row, str):
        row = {"prompt": row}
    return Prompt(_columns(row, ("prompt",), where)["prompt"], _category(row))


def _columns(row: Any, names: tuple[str, ...], where: str) -> dict[str, str]:
    if not isinstance(row, dict):
        raise ExtractionError(f"{where}: expected {' and '.join(names)}, found {_kind(row)}.")
    missing = [name for name in names if name not in row]
    if missing:
        found = ", ".join(str(name) for name in row) or "none"
        raise ExtractionError(f"{where}: column {missing[0]} is missing; found {found}.")
    for name in names:
        if not isinstance(row[name], str) or not row[name].strip():
            what = "an empty string" if isinstance(row[name], str) else _kind(row[name])
            raise ExtractionError(f"{where}: {name} must be text that is not empty, found {what}.")
        if any("\ud800" <= character <= "\udfff" for character in row[name]):
            raise ExtractionError(f"{where}: {name} holds half a surrogate pair, which is no character. Mend the file's escapes.")
    return {name: row[name] for name in names}


def _category(row: dict[str, Any]) -> str:
    return str(row.get("category") or "")


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(type(value), type(value).__name__)
