"""A run directory: its manifest, its stages, and the rule that it is never silently reused under another configuration.

manifest.json holds the resolved configuration, the hashes of what went in, versions, hardware and, per stage, the hash
of its inputs and its time. A stage whose inputs' hash is unchanged and whose files are there is not run again.
"""

import datetime
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from editing.checkpoint import free_bytes
from engine.configfile import differing_keys
from engine.errors import EngineError
from engine.progress import say

FORMAT = "refusal-run/1"
# Keys that change what is printed, not what is computed.
COSMETIC = ("description", "published")


class RunDir:
    """An opened run directory. Make one with `open_run_dir`."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    def file(self, name: str) -> Path:
        return self.path / name

    def run_stage(self, name: str, inputs: Mapping[str, Any], outputs: list[str], work: Callable[[], None]) -> bool:
        """Run `work` unless this stage has been done on the same inputs and its outputs exist; tells whether it ran."""
        inputs_hash = hash_of(inputs)
        done = self.manifest["stages"].get(name, {})
        if done.get("inputs_hash") == inputs_hash and all(self.file(output).exists() for output in outputs):
            return False
        say(f"stage: {name}")
        started = time.monotonic()
        work()
        self.manifest["stages"][name] = {
            "inputs_hash": inputs_hash,
            "seconds": round(time.monotonic() - started, 2),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        self.save()
        return True

    def save(self) -> None:
        write_json(self.file("manifest.json"), self.manifest)


def open_run_dir(path: Path, identity: Mapping[str, Any], environment: Mapping[str, Any], *, clean: bool = False) -> RunDir:
    """Open or make a run directory for `identity` (configuration and input hashes).

    Raises EngineError for a folder that is not a run directory, and for one of another identity, with the keys that
    differ and the ways out. `clean` empties a run directory first, never another folder.
    """
    manifest_file = path / "manifest.json"
    if path.exists() and not _is_run_dir(path):
        raise EngineError(f"{path} exists and is not a run directory of ours (no manifest.json). Choose another with --out.")
    if clean and path.exists():
        shutil.rmtree(path)
    if manifest_file.is_file():
        manifest = json.loads(manifest_file.read_text())
        _check_same(path, manifest["identity"], identity)
    else:
        manifest = {"format": FORMAT, "stages": {}}
    path.mkdir(parents=True, exist_ok=True)
    run_dir = RunDir(path, manifest | {"identity": dict(identity), "environment": dict(environment)})
    run_dir.save()
    return run_dir


def check_space(path: Path, needed: int) -> None:
    """Raise EngineError unless the disk of `path` has `needed` bytes left."""
    free = free_bytes(path)
    if free < needed:
        raise EngineError(
            f"No room for {path}: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB free. Choose another disk with --out."
        )


def _is_run_dir(path: Path) -> bool:
    if not path.is_dir():
        return False
    manifest = path / "manifest.json"
    return not any(path.iterdir()) or (manifest.is_file() and json.loads(manifest.read_text()).get("format") == FORMAT)


def _check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differing = differing_keys(_computed(old), _computed(new))
    if differing:
        raise EngineError(
            f"{path} was made under another configuration:\n  "
            + "\n  ".join(differing)
            + "\nUse --clean to throw its results away, or --out DIR to keep them and write elsewhere."
        )


def _computed(identity: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in identity["config"].items() if key not in COSMETIC}
    return {**identity, "config": config}


def hash_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of a table's canonical JSON, 16 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, 16 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    """Write JSON by temporary name and rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.rename(path)
