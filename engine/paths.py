"""Where things are, how a file takes its place, and how content is named."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from editing.durable import rename_synced

PROJECT_DIR = Path(__file__).resolve().parent.parent
CONFIG_DIR = PROJECT_DIR / "configs"
HASH_DIGITS = 16
TEMPORARY = ".tmp"
CHECKSUM = "checksum"


def cache_dir() -> Path:
    """Converted models and file hashes: REFUSAL_ROLLOUT_CACHE, else .cache in the project."""
    return Path(os.environ.get("REFUSAL_ROLLOUT_CACHE") or PROJECT_DIR / ".cache").expanduser()


def user_path(text: str | Path) -> Path:
    """A path as a user writes it, with ~ for a home folder; a ~ that names nobody stays as it is, and is no file."""
    return Path(os.path.expanduser(text))


def default_run_dir(variant: str) -> Path:
    """runs/<variant> under the current directory."""
    return Path("runs") / variant


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, for a file or a folder: it becomes `path` when the block ends, and goes where it fails.

    It is on the disk before it takes the name. No other process, on any machine, has the same temporary name.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        yield temporary
        rename_synced(temporary, path)
    except OSError as error:
        if error.filename is None:  # a call on an open file does not name it
            error.filename = str(path)
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed. Call where nobody else writes into the folder."""
    for left in folder.glob(f".*{TEMPORARY}"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def shorten(digest: str) -> str:
    """The first hex digits of a SHA-256: how rows, names and manifests carry a hash."""
    return digest[:HASH_DIGITS]


def hash_of(value: Mapping[str, Any]) -> str:
    """A table's identity: of its canonical JSON."""
    return shorten(hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest())


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A table for JSON with a checksum over the rest, for `is_sealed` to look at when it is read again."""
    content = json.loads(json.dumps(dict(value)))  # as it is read again: keys of tables become texts
    return {**content, CHECKSUM: _checksum(content)}


def is_sealed(value: Mapping[str, Any]) -> bool:
    """Whether a table is what `sealed` made."""
    return value.get(CHECKSUM) == _checksum(value)


def _checksum(value: Mapping[str, Any]) -> str:
    return hash_of({key: part for key, part in value.items() if key != CHECKSUM})


def file_hash(path: Path) -> str:
    """A file's identity: of its bytes."""
    return shorten(file_sha256(path))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, all 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def copy_file(source: Path, path: Path) -> None:
    """Copy a file, atomically."""
    with replace_atomically(path) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write text, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, atomically; a link at `path` is replaced, never followed."""
    with replace_atomically(path) as temporary:
        temporary.write_bytes(data)
