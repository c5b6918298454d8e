"""The header of a safetensors file: names, shapes and byte ranges of its tensors. No weight is loaded here."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editing.errors import EditError
from editing.reading import parse_json

AGAIN = "Copy or download it again."
HEADER_BYTES = 100_000_000  # safetensors' own limit
DTYPES = {"BF16": 2, "F16": 2, "F32": 4}  # what an edit can round to, with bytes per value


@dataclass(frozen=True)
class TensorEntry:
    """A tensor's place: file, safetensors dtype name, shape, and its byte range in the file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: Path) -> list[TensorEntry]:
    """Entries of one safetensors file. Raises EditError where the file is truncated or breaks the format's rules.

    The rules (no overlap, no holes, sizes of types) are checked by safetensors' own reader.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > size - 8:
            raise EditError(f"{file} is truncated or not safetensors: {size} bytes. {AGAIN}")
        if length > HEADER_BYTES:
            raise EditError(f"{file} is not safetensors: its header is {length} bytes, expected {HEADER_BYTES} at most. {AGAIN}")
        header = _parse_header(file, stream.read(length))
    begin = 8 + length
    entries = [_entry(file, name, value, begin) for name, value in header.items()]
    end = max((entry.end for entry in entries), default=begin)
    if end != size:
        raise EditError(f"{file} has {size} bytes; its header describes {end}. It is truncated: copy or download it again.")
    _check_rules(file)
    return entries


def _check_rules(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise EditError(f"{file} is not readable as safetensors ({error}). {AGAIN}") from error


def _parse_header(file: Path, data: bytes) -> dict[str, Any]:
    """A header's entries by tensor name. Raises EditError for what is not JSON, and for JSON of another form."""
    try:
        header = parse_json(data)
    except ValueError as error:
        raise EditError(f"{file} is not safetensors: its header is not JSON ({error}). Copy or download it again.") from error
    if not isinstance(header, dict):
        raise EditError(f"{file} is not safetensors: its header is no object. Copy or download it again.")
    header.pop("__metadata__", None)
    for name, value in header.items():
        if not _is_entry(value):
            raise EditError(
                f"{file} is not safetensors: its entry of {name} is not dtype, shape and data_offsets. Copy or download it again."
            )
    return header


def _is_entry(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
        return False
    offsets: Any = value.get("data_offsets")
    is_range = _is_sizes(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1]
    return is_range and _is_sizes(value.get("shape"))


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _entry(file: Path, name: str, value: dict[str, Any], begin: int) -> TensorEntry:
    first, last = value["data_offsets"]
    entry = TensorEntry(name, file, value["dtype"], tuple(value["shape"]), begin + first, begin + last)
    expected = math.prod(entry.shape) * DTYPES.get(entry.dtype, 0)
    if entry.dtype in DTYPES and expected != last - first:
        raise EditError(f"{file}: {name} has shape {entry.shape} in {entry.dtype} but {last - first} bytes; expected {expected}.")
    return entry
