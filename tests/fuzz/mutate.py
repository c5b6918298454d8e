"""A seeded mutator of users' files: what copying, editing and other programs do to them, and worse.

A mutant is the bytes of a file after one to three changes. The same seed gives the same mutant.
"""

import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**400, -(10**400), 0.5, 1e308, float("nan"), float("inf")),
    *("", " ", "x", "\ud800", "\0", "a" * 5000, "../..", "/dev/null", "1e5", "é", "{{ messages", "{% for"),
    *([], {}, [[]], [None], [1, 2, 3], ["x"], {"x": 1}, [{"role": "user"}], [[0, 0]], {"": {"": []}}),
)
SNIPPETS = (
    *(
        '"',
        "'",
        "[",
        "]",
        "{",
        "}",
        ",",
        ";",
        "\t",
        "\r",
        "\n",
        "\\",
        "=",
        "#",
        "\0",
        "\ufeff",
        "\u2028",
        "é",
        "null",
        "NaN",
        "-",
        ".",
    ),
    *(
        '"x"',
        "[]",
        "{}",
        "1e999",
        "9" * 5000,
        "0x1F",
        "true",
        "[" * 3000,
        "{'a':" * 50,
        "a.b.c = 1\n",
        "[[x]]\n",
        "1979-05-27",
        "nan",
    ),
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037", "latin-1")
Change = Callable[[bytes, random.Random], bytes]


def mutant(data: bytes, form: str, rng: random.Random) -> bytes:
    """The bytes of a file of this form after one to three changes."""
    changes = FORMS[form]
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(changes)(data, rng)
    return data


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 20)) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.choice((0, 0xFF, 0x80, 0x22, rng.randrange(256)))
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Without a stretch of bytes, or with it twice."""
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:first] + data[last:] if rng.random() < 0.5 else data[:last] + data[first:]


def spliced(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(SNIPPETS).encode() + data[place:]


def encoded(data: bytes, rng: random.Random) -> bytes:
    return data.decode("utf-8", "replace").encode(rng.choice(ENCODINGS), "replace")


def of_other_lines(data: bytes, rng: random.Random) -> bytes:
    """One line dropped, doubled, moved to the end, emptied or cut."""
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    line = lines.pop(place)
    new = rng.choice(([], [line, line], [b""], [line[: len(line) // 2]], [line + line], [line.replace(b",", b"\t")]))
    lines[place:place] = new
    return b"\n".join(lines)


def of_another_value(data: bytes, rng: random.Random) -> bytes:
    """TOML with the right-hand side of one line replaced."""
    lines = data.decode("utf-8", "replace").split("\n")
    places = [place for place, line in enumerate(lines) if "=" in line]
    if not places:
        return data
    place = rng.choice(places)
    lines[place] = f"{lines[place].partition('=')[0]}= {rng.choice(SNIPPETS)}"
    return "\n".join(lines).encode()


def changed_json(data: bytes, rng: random.Random) -> bytes:
    """JSON, or one line of JSONL, with one node replaced, dropped, renamed or nested."""
    lines = [data] if _parsed(data) is not None else data.split(b"\n")
    place = rng.randrange(len(lines))
    value = _parsed(lines[place])
    if value is None:
        return data
    lines[place] = json.dumps(_changed(value, rng)).encode() if rng.random() < 0.95 else b"[" * 200_000
    return b"\n".join(lines)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _changed(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.3 or not isinstance(value, list | dict) or not value:
        return _replaced(value, rng)
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [*value[:place], *([] if rng.random() < 0.15 else [_changed(value[place], rng)]), *value[place + 1 :]]
    key = rng.choice(list(value))
    rest = {name: other for name, other in value.items() if name != key}
    if rng.random() < 0.15:
        return rest
    if rng.random() < 0.1:
        return rest | {rng.choice((key.upper(), "", "x", "\ud800", key * 50)): value[key]}
    return value | {key: _changed(value[key], rng)}


def _replaced(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.2:
        for _ in range(rng.choice((1, 2, 90))):
            value = [value] if rng.random() < 0.5 else {"x": value}
        return value
    return str(value) if rng.random() < 0.1 else rng.choice(VALUES)


def changed_header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, whose length fits, or does not."""
    if len(data) < 8:
        return data
    length = struct.unpack("<Q", data[:8])[0]
    header = changed_json(data[8 : 8 + length], rng)
    said = len(header) if rng.random() < 0.9 else rng.choice((0, 1, len(header) - 1, len(header) + 1, 2**40, 2**64 - 1))
    return struct.pack("<Q", max(said, 0)) + header + data[8 + length :]


def changed_table(data: bytes, rng: random.Random) -> bytes:
    """A Parquet file with a column dropped, renamed, doubled, or of another type."""
    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
    except (pa.ArrowException, OSError, ValueError):
        return data
    place = rng.randrange(table.num_columns)
    name, values = table.column_names[place], [rng.choice(VALUES[:12]) for _ in range(table.num_rows)]
    kind = rng.choice((pa.string(), pa.int64(), pa.list_(pa.string()), pa.struct([("x", pa.int8())]), pa.binary(), pa.null()))
    table = rng.choice(
        (
            lambda: table.remove_column(place),
            lambda: table.rename_columns([rng.choice(("x", "", other)) for other in table.column_names]),
            lambda: table.set_column(place, name, pa.nulls(table.num_rows, kind)),
            lambda: table.set_column(place, name, pa.array([str(value) for value in values])),
            lambda: table.set_column(place, name, pa.array([float("nan")] * table.num_rows)),
            lambda: table.append_column(name, table.column(place)),
            lambda: table.slice(0, rng.randrange(3)),
        )
    )()
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def zipped(data: bytes, rng: random.Random) -> bytes:
    """A gzip file whose content is a mutant."""
    try:
        return gzip.compress(mutant(gzip.decompress(data), "jsonl", rng), mtime=0)
    except (OSError, EOFError, zlib.error):
        return data


BYTES: tuple[Change, ...] = (truncated, flipped, cut, spliced)
TEXT: tuple[Change, ...] = (*BYTES, encoded, of_other_lines)
FORMS: dict[str, tuple[Change, ...]] = {
    "bytes": BYTES,
    "text": TEXT,
    "json": (*TEXT, *[changed_json] * 12),
    "jsonl": (*TEXT, *[changed_json] * 8),
    "toml": (*TEXT, *[of_another_value] * 8),
    "safetensors": (*BYTES, *[changed_header] * 8),
    "parquet": (*BYTES, *[changed_table] * 6),
    "gzip": (*BYTES, *[zipped] * 6),
}
