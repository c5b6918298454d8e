"""A run directory: its stages, its files, and the rule that it is never silently reused under another configuration.

manifest.json holds the resolved configuration, the hashes of what went in and of every file that was written and, per stage,
the hash of its inputs, its time, and the versions, hardware and commit that made it. A stage whose inputs' hash is unchanged
and whose files are what it wrote is not run again.
"""

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editing.checkpoint import free_bytes
from engine.configs.load import differing_keys
from engine.display.progress import say
from engine.environment import describe
from engine.errors import EngineError
from engine.paths import hash_of, remove_leftovers, shorten
from engine.runs.files import MANIFEST, RUN, RUN_FORMAT, SUMMARY, SWEEP_RUN, is_own
from engine.runs.identity import check_same, computed, of_directions, without_spelling
from engine.runs.lock import INSIDE, empty, locked
from engine.runs.manifest import FILES, fingerprint, read_manifest, write_manifest

EARLIER = "an earlier version"
AGAIN = "Run the command that made it again: it is set aside and made again. Or put back the whole file."


class OtherDirectionsError(EngineError):
    """A run directory holds directions of another configuration, or is a sweep's."""


class RunDir:
    """An opened run directory. Make one with `open_run_dir`."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    def file(self, name: str) -> Path:
        return self.path / name

    @property
    def made_by(self) -> str:
        """The hash of the configuration, which every shard of rows carries."""
        identity = self.manifest.get("identity")
        return hash_of(computed(identity) if identity else {})

    def run_stage(
        self,
        name: str,
        work: Callable[[], None],
        *,
        reads: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        writes: Sequence[str] = (),
    ) -> bool:
        """Run `work` unless it has been done on the same inputs and its files are what it wrote; tells whether it ran.

        The inputs are the content of the files that it `reads`, as far as they are there, and its `settings`. Raises EngineError
        for one of those files that is damaged.
        """
        inputs_hash = hash_of({**self.hashes(reads), **(settings or {})})
        if self.manifest["stages"].get(name, {}).get("inputs_hash") == inputs_hash and self.is_whole(writes):
            return False
        self.check(reads)
        say(f"stage: {name}")
        started = time.monotonic()
        with self.writing(*writes, by=name):
            work()
            self.manifest["stages"][name] = {
                "inputs_hash": inputs_hash,
                "seconds": round(time.monotonic() - started, 2),
                "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                **describe(),
            }
        return True

    def hashes(self, names: Sequence[str]) -> dict[str, str]:
        """The hash of each file that is there, by name."""
        found = {name: fingerprint(self.file(name)) for name in names}
        return {name: shorten(known["sha256"]) for name, known in found.items() if known is not None}

    @contextlib.contextmanager
    def writing(self, *names: str, by: str) -> Iterator[None]:
        """While the stage or command `by` writes these files: what they were counts no more, what they are is kept afterwards."""
        self.set_aside(names)
        known = self.manifest.setdefault(FILES, {})
        forgotten = [known.pop(name) for name in names if name in known]
        forgotten += [self.manifest["stages"].pop(by)] if by in self.manifest.get("stages", {}) else []
        if forgotten:
            self.save()
        yield
        self._record(names, by)
        self.save()

    def is_whole(self, names: Sequence[str]) -> bool:
        """Whether each file is what the run wrote. A manifest of before files had hashes says nothing but that one is there."""
        if FILES not in self.manifest:
            return all(self.file(name).is_file() for name in names)
        return all(self._is_as_written(name) is True for name in names)

    def check(self, names: Sequence[str]) -> None:
        """Raise EngineError for a file that is there and is not what the run wrote."""
        for name in names:
            if self._is_as_written(name) is False:
                by = self.manifest[FILES][name].get("by")
                raise EngineError(f"{self.file(name)} is not what '{by}' wrote: it is damaged, or was changed. {AGAIN}")

    def set_aside(self, names: Sequence[str]) -> None:
        """Move files that are not what the run wrote out of the way, by name: their content is made again."""
        for name in names:
            if self._is_as_written(name) is False:
                aside = set_aside(self.file(name))
                say(f"run directory: {name} is not what was written there; set aside as {aside.name}, and made again")

    def _is_as_written(self, name: str) -> bool | None:
        """None where the file is missing, or where nothing is known of it."""
        known, file = self.manifest.get(FILES, {}).get(name), self.file(name)
        if known is None or not (file.exists() or file.is_symlink()):
            return None
        return fingerprint(file) == {"sha256": known.get("sha256"), "bytes": known.get("bytes")}

    def _record(self, names: Sequence[str], by: str) -> None:
        for name in names:
            if (found := fingerprint(self.file(name))) is not None:
                self.manifest.setdefault(FILES, {})[name] = found | {"by": by}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out, and know what they left. Raises EngineError where another is at work here."""
        with locked(self.path) as is_held:
            self._take_up()
            if is_held:
                remove_leftovers(self.path)
                self._know_earlier_files()
            yield

    def _take_up(self) -> None:
        """The manifest as it is now: another process may have worked here since it was read."""
        if not self.manifest.get("identity"):
            return
        there = read_manifest(self.path) if self.file(MANIFEST).is_file() else {"identity": {"config": {}}}
        if without_spelling(there["identity"]) != without_spelling(self.manifest["identity"]):
            raise EngineError(f"Another process made {self.path} anew meanwhile, or removed it. Run the command again.")
        self.manifest = there

    def _know_earlier_files(self) -> None:
        """Take the files of a run that was made before files had hashes for what they are."""
        if not self.manifest.get("identity") or self.manifest.get("format") == RUN_FORMAT:
            return
        files = sorted(file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file())
        self._record([name for name in files if is_own(name)], EARLIER)
        self.manifest["format"] = RUN_FORMAT
        self.manifest.setdefault(FILES, {})
        self.save()

    def save(self) -> None:
        write_manifest(self.path, self.manifest)


def set_aside(file: Path) -> Path:
    """Give a damaged file another name, which nothing reads; returns it."""
    aside = file.with_name(f"{file.name}.damaged-{time.time_ns()}")
    file.rename(aside)
    return aside


def open_run_dir(path: Path, identity: Mapping[str, Any], *, kind: str = RUN, clean: bool = False) -> RunDir:
    """Open or make a run directory for `identity` (configuration and input hashes); `kind` is RUN or SWEEP_RUN.

    Raises EngineError for a folder that is not a run directory, for one of another identity, with the keys that differ and the
    ways out, and where another process is at work in one that is to be made or emptied. `clean` empties a run directory
    first, never another folder.
    """
    if path.is_symlink() and clean:
        raise EngineError(
            f"{path} is a link; --clean removes run directories, not what a link points at. Name the folder itself."
        )
    check_run_dir(path)
    if not clean and (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        check_same(path, manifest["identity"], identity)
        if without_spelling(manifest["identity"]) == without_spelling(identity):
            return RunDir(path, manifest)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        check_run_dir(path)
        return _begun(path, identity, kind, clean=clean)


def _begun(path: Path, identity: Mapping[str, Any], kind: str, *, clean: bool) -> RunDir:
    """A run directory of this identity, emptied first where that is asked for. Its lock is held."""
    path.mkdir(parents=True, exist_ok=True)
    if clean:
        empty(path)
    manifest: dict[str, Any] = {"format": RUN_FORMAT, "kind": kind, "stages": {}, FILES: {}}
    if (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        check_same(path, manifest["identity"], identity)
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
        raise OtherDirectionsError(f"{path} is a sweep's directory, which has directions of its own. {elsewhere}")
    if differing := differing_keys(of_directions(manifest["identity"]), of_directions(identity)):
        raise OtherDirectionsError(f"{path} holds or awaits other directions:\n  " + "\n  ".join(differing) + f"\n{elsewhere}")
    return RunDir(path, manifest)


def check_files(path: Path, names: Sequence[str]) -> None:
    """Raise EngineError for one of these files of a run that is not what the run wrote. A folder that is no run has none."""
    if (path / MANIFEST).exists() or (path / MANIFEST).is_symlink():
        RunDir(path, read_manifest(path)).check(names)


def is_finished(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether `path` is a run directory of this identity whose summary is there and whose own files are whole."""
    if not (path / SUMMARY).is_file() or not (path / MANIFEST).is_file():
        return False
    manifest = read_manifest(path)
    if "summary" not in manifest["stages"] or without_spelling(manifest["identity"]) != without_spelling(identity):
        return False
    return RunDir(path, manifest).is_whole([name for name in manifest.get(FILES, {}) if is_own(name)])


def check_space(path: Path, needed: int) -> None:
    """Raise EngineError unless the disk of `path` has `needed` bytes left."""
    free = free_bytes(path)
    if free < needed:
        raise EngineError(
            f"No room for {path}: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB free. Choose another disk with --out."
        )


def check_run_dir(path: Path) -> None:
    """Raise EngineError for a folder or file that is no run directory, and where none could be made. Takes no time."""
    above = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if above != path.absolute() and not (above.is_dir() and os.access(above, os.W_OK)):
        why = "is not yours to write to" if above.is_dir() else "is a file"
        raise EngineError(f"{path} cannot be made: {above} {why}. Choose another with --out.")
    if path.exists() and not _is_run_dir(path):
        raise EngineError(f"{path} exists and is not a run directory of ours (no manifest.json). Choose another with --out.")


def _is_run_dir(path: Path) -> bool:
    if not path.is_dir():
        return False
    # A run killed at its first write leaves a temporary manifest and nothing else.
    started = all(file.name.startswith((f".{MANIFEST}.", INSIDE)) for file in path.iterdir())
    return started or ((path / MANIFEST).is_file() and bool(read_manifest(path)))
