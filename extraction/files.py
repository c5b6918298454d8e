"""Direction files: safetensors with the convention and the provenance in their metadata."""

import errno
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from extraction.directions import CONVENTION, MEAN_DIFFERENCE, Directions
from extraction.errors import ExtractionError
from extraction.positions import LAST

FORMAT = "refusal-directions/1"
MEANS, ESTIMATED = ("declined_mean", "answered_mean"), "estimated"
AGAIN = "Extract the directions again, with bin/extract."


def save_directions(path: Path, directions: Directions, provenance: Mapping[str, str]) -> None:
    """Write `mean_difference` (unnormalised) and both means, each (L+1, H) float64, by temporary name and rename.

    Another estimator's unit directions come as `estimated`. The metadata holds format, convention, position, estimator,
    num_pairs, norms (a JSON list) and `provenance`.
    """
    from safetensors.torch import save

    tensors = {
        "mean_difference": directions.mean_difference_LH.contiguous(),
        "declined_mean": directions.declined_mean_LH.contiguous(),
        "answered_mean": directions.answered_mean_LH.contiguous(),
    }
    if directions.estimated_LH is not None:
        tensors["estimated"] = directions.estimated_LH.contiguous()
    metadata = {
        **provenance,
        "format": FORMAT,
        "convention": CONVENTION,
        "position": directions.position,
        "estimator": directions.estimator,
        "num_pairs": str(directions.num_pairs),
        "norms": json.dumps([float(f"{norm:.6g}") for norm in directions.norms_L.tolist()]),
    }
    _replace(path, save(tensors, metadata))


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole: its bytes are on the disk before it takes its name. Raises OSError for a disk that is full."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a call on an open file does not name it
        raise
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network disks flush no folders
            raise
    finally:
        os.close(folder)


def load_directions(path: Path) -> Directions:
    """Directions of a file that `save_directions` wrote. Raises ExtractionError for any other file, and for a damaged one."""
    metadata = read_metadata(path)
    if metadata.get("convention") != CONVENTION:
        raise ExtractionError(f"{path} numbers layers by '{metadata.get('convention')}', expected '{CONVENTION}'.")
    count = metadata.get("num_pairs", "")
    if not (count.isascii() and count.isdigit() and len(count) < 19):
        raise ExtractionError(f"{path}: num_pairs is '{count[:40]}', expected a number. {AGAIN}")
    tensors = _read_tensors(path)
    declined_LH, answered_LH = (tensors[name] for name in MEANS)
    position, estimator = metadata.get("position", LAST), metadata.get("estimator", MEAN_DIFFERENCE)
    return Directions(declined_LH, answered_LH, int(count), position, estimator, tensors.get(ESTIMATED))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Both means, and another estimator's directions where they are there: all (L+1, H) float64 and finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_regular(path)
    try:
        tensors = load_file(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError: torch opens the file once more
        raise ExtractionError(f"{path} is not a readable direction file ({error}). {AGAIN}") from error
    names = [name for name in (*MEANS, ESTIMATED) if name in tensors or name != ESTIMATED]
    shape = tensors[MEANS[0]].shape if MEANS[0] in tensors else None
    for name in names:
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype != torch.float64 or tensor.dim() != 2 or tensor.shape != shape:
            found = "nothing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ExtractionError(f"{path}: {name} is {found}, expected (layers, hidden size) in float64, as the rest. {AGAIN}")
        if not tensor.isfinite().all():
            raise ExtractionError(f"{path}: {name} holds NaN or infinity. {AGAIN}")
    return tensors


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ExtractionError(f"{path} is not a readable direction file (it is no file). {AGAIN}")


def read_metadata(path: Path) -> dict[str, str]:
    """A direction file's metadata. Raises ExtractionError for any other file."""
    from safetensors import SafetensorError, safe_open

    _check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ExtractionError(f"{path} is not a readable direction file ({error}). {AGAIN}") from error
    if metadata.get("format") != FORMAT:
        raise ExtractionError(f"{path} holds no directions: its format is '{metadata.get('format')}', expected '{FORMAT}'.")
    return metadata
