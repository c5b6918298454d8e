"""A run directory: its manifest, its stages, and the rule that it is never silently reused under another configuration.

manifest.json holds the resolved configuration, the hashes of what went in and, per stage, the hash of its inputs, its
time, and the versions, hardware and commit that made it. A stage whose inputs' hash is unchanged and whose files are
there is not run again.
"""

import contextlib
import datetime
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editing.checkpoint import free_bytes
from editing.reading import parse_json
from engine.configs.load import differing_keys
from engine.display.progress import say
from engine.environment import describe
from engine.errors import EngineError
from engine.paths import file_hash, hash_of, write_json
from engine.runs.files import MANIFEST, RUN, RUN_FORMAT, SUMMARY, SWEEP_RUN

# Keys that change what is printed or added, not what is there. A sweep, whose judge decides, names it beside its configuration.
COSMETIC = ("description", "published", "judge")
# How a model, a file of prompts or directions is called: what they hold is in the hashes.
SPELLING = {
    "model": {"path", "revision"},
    "data": {"train_pairs", "selection_pairs", "test_requests", "test_answerable", "unrelated"},
    "directions": {"file"},
}


class RunDir:
    """An opened run directory. Make one with `open_run_dir`."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    def file(self, name: str) -> Path:
        return self.path / name

    def run_stage(
        self,
        name: str,
        work: Callable[[], None],
        *,
        reads: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        writes: Sequence[str] = (),
    ) -> bool:
        """Run `work` unless it has been done on the same inputs and what it writes is there; tells whether it ran.

        The inputs are the content of the files that it `reads`, as far as they are there, and its `settings`.
        """
        inputs_hash = hash_of({**self.hashes(reads), **(settings or {})})
        done = self.manifest["stages"].get(name, {})
        if done.get("inputs_hash") == inputs_hash and all(self.file(file).exists() for file in writes):
            return False
        say(f"stage: {name}")
        started = time.monotonic()
        work()
        self.manifest["stages"][name] = {
            "inputs_hash": inputs_hash,
            "seconds": round(time.monotonic() - started, 2),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **describe(),
        }
        self.save()
        return True

    def hashes(self, names: Sequence[str]) -> dict[str, str]:
        """The hash of each file that is there, by name."""
        return {name: file_hash(self.file(name)) for name in names if self.file(name).is_file()}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out. Raises EngineError where another is at work here."""
        with self.file(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EngineError(f"Another process is at work in {self.path}. Wait for it, or choose another --out.") from None
            yield

    def save(self) -> None:
        write_json(self.file(MANIFEST), self.manifest)


def open_run_dir(path: Path, identity: Mapping[str, Any], *, kind: str = RUN, clean: bool = False) -> RunDir:
    """Open or make a run directory for `identity` (configuration and input hashes); `kind` is RUN or SWEEP_RUN.

    Raises EngineError for a folder that is not a run directory, and for one of another identity, with the keys that
    differ and the ways out. `clean` empties a run directory first, never another folder.
    """
    if path.is_symlink() and clean:
        raise EngineError(
            f"{path} is a link; --clean removes run directories, not what a link points at. Name the folder itself."
        )
    if path.exists() and not _is_run_dir(path):
        raise EngineError(f"{path} exists and is not a run directory of ours (no manifest.json). Choose another with --out.")
    if clean and path.exists():
        shutil.rmtree(path)
    if (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        _check_same(path, manifest["identity"], identity)
        if without_spelling(manifest["identity"]) == without_spelling(identity):
            return RunDir(path, manifest)
    else:
        manifest = {"format": RUN_FORMAT, "kind": kind, "stages": {}}
    path.mkdir(parents=True, exist_ok=True)
    run_dir = RunDir(path, manifest | {"identity": dict(identity)})
    run_dir.save()
    return run_dir


def open_for_directions(path: Path, identity: Mapping[str, Any]) -> RunDir:
    """A run directory whose directions are those of `identity`, whatever else its run was configured to do; new if missing.

    Raises EngineError where they are others, with the keys that differ, and for a sweep's directory.
    """
    if not (path / MANIFEST).is_file():
        return open_run_dir(path, identity)
    manifest = read_manifest(path)
    elsewhere = "Name another run directory (--out; bin/edit: --run)."
    if manifest["kind"] == SWEEP_RUN:
        raise EngineError(f"{path} is a sweep's directory, which has directions of its own. {elsewhere}")
    if differing := differing_keys(_of_directions(manifest["identity"]), _of_directions(identity)):
        raise EngineError(f"{path} holds or awaits other directions:\n  " + "\n  ".join(differing) + f"\n{elsewhere}")
    return RunDir(path, manifest)


def _of_directions(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an identity that directions depend on."""
    config = without_spelling(identity)["config"]
    data, directions = config.get("data", {}), config.get("directions", {})
    read_at = {key: directions.get(key) for key in ("position", "estimator")}
    found = {key: identity.get(key) for key in ("base_hash", "rendering_hashes")}
    hashes = {key: identity.get("data_hashes", {}).get(key) for key in ("train_pairs", "directions")}
    pairs = {**hashes, **{key: data.get(key) for key in ("num_pairs", "pair_columns")}}
    return {**found, "data": pairs, "config": {"model": config.get("model"), "directions": read_at}}


def is_finished(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether `path` is a run directory of this identity whose summary is there."""
    if not (path / SUMMARY).is_file() or not (path / MANIFEST).is_file():
        return False
    manifest = read_manifest(path)
    return "summary" in manifest["stages"] and without_spelling(manifest["identity"]) == without_spelling(identity)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run directory. Raises EngineError where it cannot be read."""
    try:
        manifest = parse_json((path / MANIFEST).read_bytes())
        config, stages = manifest["identity"]["config"], manifest["stages"]
        if manifest["format"] == RUN_FORMAT and config and isinstance(config, dict) and isinstance(stages, dict):
            # Before the field was written, only a sweep's configuration had no directions.
            return {"kind": RUN if "directions" in config else SWEEP_RUN, **manifest}
    except (ValueError, KeyError, TypeError):
        pass
    raise EngineError(
        f"{path}/manifest.json cannot be read as a run's. Use another directory with --out, or remove this one yourself."
    )


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
    # A run killed at its first write leaves a temporary manifest and nothing else.
    started = all(file.name.startswith((".manifest.json.", ".lock")) for file in path.iterdir())
    return started or ((path / MANIFEST).is_file() and bool(read_manifest(path)))


def _check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differing = differing_keys(computed(old), computed(new))
    if differing:
        raise EngineError(
            f"{path} was made under another configuration:\n  "
            + "\n  ".join(differing)
            + "\nUse --clean to throw its results away, or --out DIR to keep them and write elsewhere."
        )


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
