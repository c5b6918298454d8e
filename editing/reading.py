"""The one reader of JSON files and of small safetensors files: damage is one message that names the file and the cause.

A checkpoint's own headers are `editing.checkpoint`'s matter, which loads no weight.
"""

from __future__ import annotations  # torch is named in annotations alone

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editing.errors import EditError

if TYPE_CHECKING:
    from torch import Tensor


def read_object(path: Path, advice: str) -> dict[str, Any]:
    """The object of a JSON file. Raises EditError, which ends in `advice`, for a file that cannot be read or holds no object."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise EditError(f"{path} cannot be read as JSON (it is no file). {advice}")
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EditError(f"{path} cannot be read as JSON ({error}). {advice}") from error
    if not isinstance(found, dict):
        raise EditError(f"{path}: expected a JSON object, found {type(found).__name__}. {advice}")
    return found


def parse_json(data: bytes) -> Any:
    """A JSON value. Raises ValueError for broken JSON, what is no UTF-8, numbers of thousands of digits and deep nesting."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_tensors(path: Path, advice: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises EditError, which ends in `advice`, for a file that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.exists() and not path.is_file():
        raise EditError(f"{path} is not a readable safetensors file (it is no file). {advice}")
    try:
        return load_file(path)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:  # RuntimeError: torch opens it once more
        raise EditError(f"{path} is not a readable safetensors file ({error}). {advice}") from error


def is_number(value: Any) -> bool:
    """True for a finite number that a float holds, and is no bool."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
