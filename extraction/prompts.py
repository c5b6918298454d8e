"""Prompt files: pairs (a declined and an answered request) and plain lists.

Reads the study's JSON forms, `[[declined, answered], ...]` and `[prompt, ...]`, and tables with named columns, as
`extraction.tables` has them. A prompt is a text or a conversation (`extraction.conversations`). Knows nothing of tokenizers or
models. `embedded:NAME` names a file of the project's own.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction.conversations import has_system, read_messages, with_system
from extraction.errors import ExtractionError
from extraction.tables import Row, is_missing, kind_of, load_rows

EMBEDDED_DIR = Path(__file__).parent / "data"
EMBEDDED_PREFIX = "embedded:"
KIND_COLUMNS = ("category", "kind")
# Column names that are read without being asked for: this project's, the study's, and those of the field's prompt sets.
PAIR_COLUMNS = (("declined", "answered"), ("harmful", "harmless"), ("harmful", "safe"), ("unsafe", "safe"))
REQUEST_COLUMNS = tuple(
    (name,)
    for name in (
        "prompt",
        "instruction",
        "goal",
        "behavior",
        "question",
        "text",
        "query",
        "request",
        "forbidden_prompt",
        "messages",
    )
)


@dataclass(frozen=True)
class Pair:
    """A request that the model declines and its twin that it answers. `category` and `language` are "" where unknown."""

    declined: str
    answered: str
    category: str = ""
    language: str = ""


@dataclass(frozen=True)
class Prompt:
    """One request: a text, or a `Conversation`. `category` and `language` are "" where the file has none."""

    text: str
    category: str = ""
    language: str = ""


def load_pairs(source: str | Path, columns: Sequence[str] | None = None) -> list[Pair]:
    """Pairs of a file: rows [declined, answered], or rows with two of the columns in PAIR_COLUMNS and, optionally, category.

    columns: the names of the declined and the answered column; None takes those that are known. Embedded files have their own.
    A cell is a text, or chat messages. Raises ExtractionError for an unreadable file, a row of another shape
    or an empty text, with the row's line or number.
    """
    path, columns = resolve(source), _asked(source, columns)
    return [_as_pair(row, columns) for row in load_rows(path)]


def load_prompts(source: str | Path, column: str | None = None) -> list[Prompt]:
    """Prompts of a file: texts, chat messages, or rows with a column of REQUEST_COLUMNS and, optionally, others.

    system: the system text of a row. category or kind: its kind. language: free text.

    column: the prompts' column; None takes the one that is known. Cells and errors are those of `load_pairs`.
    """
    path, columns = resolve(source), _asked(source, None if column is None else [column])
    return [_as_prompt(row, columns) for row in load_rows(path)]


def _asked(source: str | Path, columns: Sequence[str] | None) -> Sequence[str] | None:
    return None if str(source).startswith(EMBEDDED_PREFIX) else columns


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
        path = Path(os.path.expanduser(text))  # unlike Path's, it leaves a ~ that names nobody
        if not path.is_file():
            raise ExtractionError(f"Prompt file {text} does not exist. Give a path, or one of {_embedded_names()}.")
        return path
    path = EMBEDDED_DIR / f"{text.removeprefix(EMBEDDED_PREFIX)}.jsonl"
    if not path.is_file():
        raise ExtractionError(f"There is no embedded prompt file {text}; there are {_embedded_names()}.")
    return path


def _embedded_names() -> str:
    return ", ".join(EMBEDDED_PREFIX + path.stem for path in sorted(EMBEDDED_DIR.glob("*.jsonl")))


def _as_pair(row: Row, columns: Sequence[str] | None) -> Pair:
    value = row.value
    if isinstance(value, list):
        if len(value) != 2:
            raise ExtractionError(f"{row.where}: expected [declined, answered], found a list of {len(value)}.")
        return Pair(_text(value[0], f"{row.where}: declined"), _text(value[1], f"{row.where}: answered"))
    if not isinstance(value, dict):
        raise ExtractionError(f"{row.where}: expected columns such as declined and answered, found {kind_of(value)}.")
    declined, answered = columns_of(value, columns, PAIR_COLUMNS, row.where, "--columns DECLINED,ANSWERED")
    texts = [_under_system(_text(value[name], f"{row.where}: {name}"), value, row.where) for name in (declined, answered)]
    return Pair(texts[0], texts[1], _category(value, row.where), _cell(value, "language", row.where))


def _as_prompt(row: Row, columns: Sequence[str] | None) -> Prompt:
    value = row.value
    if isinstance(value, dict):
        (name,) = columns_of(value, columns, REQUEST_COLUMNS, row.where, "--columns NAME")
        text = _under_system(_text(value[name], f"{row.where}: {name}"), value, row.where)
        return Prompt(text, _category(value, row.where), _cell(value, "language", row.where))
    return Prompt(_text(value, f"{row.where}: prompt"))


def columns_of(
    row: Mapping[str, Any], asked: Sequence[str] | None, known: Sequence[tuple[str, ...]], where: str, flag: str
) -> tuple[str, ...]:
    """The row's own names of the columns to read: those asked for, else the known ones that it has, in any case.

    Raises ExtractionError for none of them, and for two known ones at once, naming both.
    """
    names = {str(name).strip().lower(): str(name) for name in row}
    if asked is not None:
        if missing := [name for name in asked if name not in row and name.lower() not in names]:
            raise ExtractionError(f"{where}: column {missing[0]} is missing; found {', '.join(names.values()) or 'none'}.")
        return tuple(name if name in row else names[name.lower()] for name in asked)
    found = [tuple(names[name] for name in some) for some in known if all(name in names for name in some)]
    if len(found) > 1:
        both = " and ".join("/".join(some) for some in found[:2])
        raise ExtractionError(f"{where}: {both} could both be meant. Name one with {flag}, or take the other out.")
    if not found:
        wanted, there = "/".join(known[0]), ", ".join(names.values()) or "none"
        raise ExtractionError(f"{where}: no column is known as {wanted}; found {there}. Name yours with {flag}, or rename it.")
    return found[0]


def _text(value: Any, what: str) -> str:
    if isinstance(value, str) and value.lstrip().startswith('[{"role"'):  # messages in a cell of text
        value = _as_json(value)
    if isinstance(value, list):
        return _checked(read_messages(value, what), what)
    if not isinstance(value, str) or not value.strip():
        found = "an empty string" if isinstance(value, str) else kind_of(value)
        raise ExtractionError(f"{what} must be text that is not empty, found {found}.")
    return _checked(value, what)


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _under_system(text: str, row: Mapping[str, Any], where: str) -> str:
    """A prompt under its row's system text. Raises ExtractionError where its messages bring one too."""
    system = _cell(row, "system", where)
    if system and has_system(text):
        raise ExtractionError(f"{where}: the system prompt stands in a column and in the messages. Leave one out.")
    return with_system(text, system)


def _category(row: Mapping[str, Any], where: str) -> str:
    found = {name: value for name in KIND_COLUMNS if (value := _cell(row, name, where))}
    if len(set(found.values())) > 1:
        raise ExtractionError(f"{where}: category and kind both name the prompt's kind, and differ. Leave one out.")
    return next(iter(found.values()), "")


def _cell(row: Mapping[str, Any], column: str, where: str) -> str:
    """The text of an optional column, found in any case; "" where it is missing."""
    value = next((row[name] for name in row if str(name).strip().lower() == column), None)
    if is_missing(value):
        return ""
    if isinstance(value, list | dict):
        raise ExtractionError(f"{where}: {column} must be text, found {kind_of(value)}.")
    return _checked(str(value), f"{where}: {column}")


def _checked(text: str, what: str) -> str:
    _check_characters(text, what)
    return text


def _check_characters(text: str, what: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ExtractionError(f"{what} holds half a surrogate pair, which is no character. Mend the file's escapes.")
