"""The runs of a folder with their state, and the project's cache with its sizes: for `bin/list` and `bin/cache`."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.paths import cache_dir
from engine.runs.files import MANIFEST, SCORES, SUMMARY
from engine.runs.lock import is_held
from engine.runs.manifest import read_manifest

# What the cache holds: a name for it, the files and folders, and what making it again costs.
CACHED = {
    "models": (("models", "views"), "the embedded model as safetensors: 20 s to convert again"),
    "served": (("served",), "checkpoints and adapters that bin/serve wrote: seconds to minutes each"),
    "judgements": (
        ("judgements.sqlite", "judgements.sqlite-wal", "judgements.sqlite-shm"),
        "paid answers of judges: asked again",
    ),
    "calibrations": (("calibrations",), "error rates from bin/judge --calibrate: measured again"),
    "batches": (("batches",), "batches that an endpoint works on: their answers would be lost"),
    "hashes": (("checkpoint_hashes.json", "checkpoint_identities.json", "verified_folders.json"), "hashes of weights: seconds"),
    "timings": (("timings.json",), "how fast this machine was, for --dry-run"),
}


@dataclass(frozen=True)
class FoundRun:
    """A run directory: `stages` are those that are done, `problem` is why its manifest cannot be read."""

    folder: str
    kind: str = ""
    variant: str = ""
    state: str = ""
    stages: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Cached:
    """A part of the cache: what it is, how many files and bytes, and what making it again costs."""

    name: str
    files: int
    size: int
    again: str


def runs_below(folder: Path) -> list[FoundRun]:
    """Every run directory directly in a folder, by name; none where there is no such folder."""
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    return [_run(path) for path in found]


def cached() -> list[Cached]:
    """What the cache holds, each part that is there."""
    parts = [_part(name, names, again) for name, (names, again) in CACHED.items()]
    return [part for part in parts if part.files]


def check_part(name: str) -> None:
    """Raise EngineError for a name that is no part of the cache."""
    if name not in CACHED:
        raise EngineError(f"The cache has no '{name}'. It has: {', '.join(CACHED)}.")


def remove_cached(name: str) -> None:
    """Remove a part of the cache."""
    for path in _paths(CACHED[name][0]):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _run(path: Path) -> FoundRun:
    try:
        manifest = read_manifest(path)
    except EngineError as error:
        return FoundRun(path.name, state="damaged", problem=str(error))
    stages: Mapping[str, Any] = manifest["stages"]
    config = manifest["identity"]["config"]
    return FoundRun(path.name, manifest["kind"], str(config.get("variant", "")), _state(path, stages), tuple(stages))


def _state(path: Path, stages: Mapping[str, Any]) -> str:
    if is_held(path):
        return "running"
    if (path / SUMMARY).is_file() and "summary" in stages:
        return "finished"
    return "unfinished" if stages or (path / SCORES).is_file() else "begun"


def _part(name: str, names: tuple[str, ...], again: str) -> Cached:
    files = [file for path in _paths(names) for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return Cached(name, len(files), sum(file.stat().st_size for file in files if not file.is_symlink()), again)


def _paths(names: tuple[str, ...]) -> list[Path]:
    return [cache_dir() / name for name in names if (cache_dir() / name).exists()]
