"""The record of an edit that stands beside its weights: edit.json, and the basis that was removed."""
# H = hidden size, K = directions

from pathlib import Path
from typing import Any

import torch

from editing.errors import EditError
from editing.folder import BASIS_FILE, EDIT_FILE
from editing.projection import Edit, check_edit
from editing.reading import is_number, read_object, read_tensors

FORMAT = "refusal-edit/1"
TEXTS = ("variant", "variant_hash", "base_model", "base_hash", "basis_hash", "position", "estimator", "scope")
ADVICE = "Write the edit again with bin/edit, into another folder."


def read_record(directory: Path) -> dict[str, Any]:
    """The fields of an edit.json. Raises EditError for one that is damaged, of another format, or lacks a field."""
    file = directory / EDIT_FILE
    record = read_object(file, ADVICE)
    if record.get("format") != FORMAT:
        raise EditError(f"{file} has format {str(record.get('format'))[:40]!r}; expected '{FORMAT}'. {ADVICE}")
    for name, is_fit in _checks().items():
        if name not in record:
            raise EditError(f"{file} has no field '{name}'. {ADVICE}")
        if not is_fit(record[name]):
            raise EditError(f"{file}: '{name}' is not of the form that bin/edit writes. {ADVICE}")
    return record


def _checks() -> dict[str, Any]:
    numbers = {"alpha": is_number, "keep_norms": lambda value: isinstance(value, bool)}
    lists = {"layers": lambda value: isinstance(value, list), "basis_shape": _is_shape, "tensors": _is_alphas}
    return {name: lambda value: isinstance(value, str) for name in TEXTS} | numbers | lists


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(size, int) for size in value)


def _is_alphas(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(is_number, value.values()))


def read_edit(directory: Path, record: dict[str, Any], hidden_size: int) -> Edit:
    """The edit of a folder that `record` is of. Raises EditError for a basis that is damaged or not of this width."""
    file = directory / BASIS_FILE
    basis_HK = read_tensors(file, ADVICE).get("basis")
    if basis_HK is None or basis_HK.dim() != 2 or basis_HK.dtype != torch.float64:
        raise EditError(f"{file} holds no tensor 'basis' of (hidden size, directions) in float64. {ADVICE}")
    edit = Edit(basis_HK, record["alpha"], record["keep_norms"])
    check_edit(edit, hidden_size)
    return edit
