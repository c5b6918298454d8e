"""Direction files: safetensors with the convention and the provenance in their metadata."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from extraction.directions import CONVENTION, MEAN_DIFFERENCE, Directions
from extraction.errors import ExtractionError
from extraction.positions import LAST

FORMAT = "refusal-directions/1"


def save_directions(path: Path, directions: Directions, provenance: Mapping[str, str]) -> None:
    """Write `mean_difference` (unnormalised) and both means, each (L+1, H) float64, by temporary name and rename.

    Another estimator's unit directions come as `estimated`. The metadata holds format, convention, position, estimator,
    num_pairs, norms (a JSON list) and `provenance`.
    """
    from safetensors.torch import save_file

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, temporary, metadata)
    temporary.rename(path)


def load_directions(path: Path) -> Directions:
    """Directions of a file that `save_directions` wrote. Raises ExtractionError for any other file."""
    metadata = read_metadata(path)
    if metadata.get("convention") != CONVENTION:
        raise ExtractionError(f"{path} numbers layers by '{metadata.get('convention')}', expected '{CONVENTION}'.")
    from safetensors.torch import load_file

    tensors = load_file(path)
    return Directions(
        tensors["declined_mean"],
        tensors["answered_mean"],
        int(metadata["num_pairs"]),
        metadata.get("position", LAST),
        metadata.get("estimator", MEAN_DIFFERENCE),
        tensors.get("estimated"),
    )


def read_metadata(path: Path) -> dict[str, str]:
    """A direction file's metadata. Raises ExtractionError for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ExtractionError(f"{path} is not a readable direction file ({error}).") from error
    if metadata.get("format") != FORMAT:
        raise ExtractionError(f"{path} holds no directions: its format is '{metadata.get('format')}', expected '{FORMAT}'.")
    return metadata
