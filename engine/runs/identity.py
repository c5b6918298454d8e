"""What makes two runs the same: their configurations and the hashes of what they read, whatever names those go by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.configs.load import differing_keys
from engine.errors import EngineError

# Keys that change what is printed or added, not what is there. A sweep, whose judge decides, names it beside its configuration.
COSMETIC = ("description", "published", "judge")
# How a model, a file of prompts or directions is called: what they hold is in the hashes.
SPELLING = {
    "model": {"path", "revision"},
    "data": {"train_pairs", "selection_pairs", "test_requests", "test_answerable", "unrelated"},
    "directions": {"file"},
}


def computed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an identity that decides what a run computes: without names of files, and without what is only printed."""
    found = without_spelling(identity)
    return {**found, "config": {key: value for key, value in found["config"].items() if key not in COSMETIC}}


def without_spelling(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity without the names of files and models: two spellings of one path are one run.

    A key that is not set says nothing either: an earlier version did not know it.
    """
    config = {
        name: {key: value for key, value in part.items() if key not in SPELLING.get(name, ()) and value is not None}
        if isinstance(part, Mapping)
        else part
        for name, part in identity["config"].items()
    }
    return {**identity, "config": config}


def of_directions(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an identity that directions depend on."""
    config = without_spelling(identity)["config"]
    data, directions = config.get("data", {}), config.get("directions", {})
    read_at = {key: directions.get(key) for key in ("position", "estimator")}
    found = {key: identity.get(key) for key in ("base_hash", "rendering_hashes")}
    hashes = {key: identity.get("data_hashes", {}).get(key) for key in ("train_pairs", "directions")}
    pairs = {**hashes, **{key: data.get(key) for key in ("num_pairs", "pair_columns")}}
    return {**found, "data": pairs, "config": {"model": config.get("model"), "directions": read_at}}


def check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differing = differing_keys(computed(old), computed(new))
    if differing:
        raise EngineError(
            f"{path} was made under another configuration:\n  "
            + "\n  ".join(differing)
            + "\nUse --out DIR to keep it and write elsewhere, or --clean to throw its results away."
        )
