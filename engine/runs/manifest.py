"""manifest.json: read and written with a checksum over itself, and what it says of the files that a run wrote.

A file is used only where it is what the run wrote: its SHA-256 and size stand in the manifest.
"""

import functools
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editing.reading import parse_json
from engine.errors import EngineError
from engine.paths import file_sha256, is_sealed, sealed, write_json
from engine.runs.files import MANIFEST, READABLE_FORMATS, RUN, RUN_FORMAT, SWEEP_RUN

FILES = "files"
SETTLED_SECONDS = 2.0  # after its last change a file's time tells whether it changed again
ELSEWHERE = "Use another directory with --out, or remove this one yourself."


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run directory. Raises EngineError where it cannot be read, is damaged, or is of a newer version."""
    file = path / MANIFEST
    try:
        check_regular(file)
        manifest = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise EngineError(f"{file} cannot be read as a run's ({error}). {ELSEWHERE}") from error
    form = manifest.get("format") if isinstance(manifest, dict) else None
    if form not in READABLE_FORMATS:
        raise EngineError(
            f"{file} cannot be read as a run's: its format is {str(form)[:40]!r}, expected {RUN_FORMAT!r} or older. {ELSEWHERE}"
        )
    if form == RUN_FORMAT and not is_sealed(manifest):
        raise EngineError(f"{file} cannot be read as a run's: it is not what was written there (its checksum). {ELSEWHERE}")
    if not _has_form(manifest):
        raise EngineError(f"{file} cannot be read as a run's: it has no identity, stages or files. {ELSEWHERE}")
    # Before the field was written, only a sweep's configuration had no directions.
    return {"kind": RUN if "directions" in manifest["identity"]["config"] else SWEEP_RUN, **manifest}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a run directory, atomically."""
    write_json(path / MANIFEST, sealed(manifest))


def fingerprint(file: Path) -> dict[str, Any] | None:
    """A file's SHA-256 and size in bytes; None where there is no regular file."""
    try:
        status = file.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    settled = time.time() - status.st_mtime > SETTLED_SECONDS
    known = (status.st_size, status.st_mtime_ns, status.st_ino)
    digest = _remembered(file.absolute(), *known) if settled else file_sha256(file)
    return {"sha256": digest, "bytes": status.st_size}


@functools.lru_cache(maxsize=4096)
def _remembered(file: Path, size: int, changed: int, inode: int) -> str:
    return file_sha256(file)


def check_regular(file: Path) -> None:
    """Raise OSError for what is there and is no regular file: a pipe would be waited for."""
    if file.exists() and not file.is_file():
        raise OSError(f"it is a {'folder' if file.is_dir() else 'pipe or device'}, not a file")


def _has_form(manifest: Mapping[str, Any]) -> bool:
    identity, files = manifest.get("identity"), manifest.get(FILES, {})
    config = identity.get("config") if isinstance(identity, dict) else None
    if not config or not isinstance(config, dict) or not isinstance(manifest.get("stages"), dict):
        return False
    return isinstance(files, dict) and all(isinstance(known, dict) for known in files.values())
