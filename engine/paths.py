"""Where things are, how a file takes its place, and how content is named."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PROJECT_DIR = Path(__file__).resolve().parent.parent
CONFIG_DIR = PROJECT_DIR / "configs"
HASH_DIGITS = 16


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
    """A temporary name beside `path`, for a file or a folder: it becomes `path` when the block ends, and goes where it fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.rename(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def shorten(digest: str) -> str:
    """The first hex digits of a SHA-256: how rows, names and manifests carry a hash."""
    return digest[:HASH_DIGITS]


def hash_of(value: Mapping[str, Any]) -> str:
    """A table's identity: of its canonical JSON."""
    return shorten(hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest())


def file_hash(path: Path) -> str:
    """A file's identity: of its bytes."""
    with path.open("rb") as stream:
        return shorten(hashlib.file_digest(stream, "sha256").hexdigest())


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def copy_file(source: Path, path: Path) -> None:
    """Copy a file, atomically."""
    with replace_atomically(path) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write text, atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
