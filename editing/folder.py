"""Output folders: made under a temporary name and renamed when complete, and what an edit's folder holds beside weights."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editing.durable import rename_synced
from editing.errors import EditError

if TYPE_CHECKING:
    from editing.projection import Edit

EDIT_FILE, REPORT_FILE, BASIS_FILE = "edit.json", "edit_report.json", "edit/basis.safetensors"


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends, and is removed where it fails.

    Everything in it is on the disk before it takes the name. Raises EditError where `out` exists or cannot be made, and for an
    error of the disk inside the block.
    """
    check_free(out)
    _remove_abandoned(out)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(8)}.partial")
    try:
        temporary.mkdir(parents=True)
        with _claimed(temporary):
            yield temporary
            rename_synced(temporary, out)
    except OSError as error:
        raise EditError(f"Could not write {out}: {error.strerror or error}. Nothing was left there.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raise EditError where `out` exists, or lies behind something that is no folder."""
    if out.exists() or out.is_symlink():
        ours = "an edited checkpoint" if (out / EDIT_FILE).is_file() else "not one of ours"
        raise EditError(f"Output folder {out} exists already ({ours}). Choose another with --out, or remove it yourself.")
    if blocked := next((parent for parent in out.absolute().parents if parent.exists() and not parent.is_dir()), None):
        raise EditError(f"Output folder {out} cannot be made: {blocked} is a file. Choose another with --out.")


def save_edit(directory: Path, edit: "Edit", record: Mapping[str, Any], card: str) -> None:
    """Write edit.json, README.md and the basis beside an edit's weights.

    The basis has a folder of its own: loaders take any safetensors at the top for weights.
    """
    (directory / BASIS_FILE).parent.mkdir(exist_ok=True)
    save_tensors(directory / BASIS_FILE, {"basis": edit.basis_HK.contiguous()})
    (directory / EDIT_FILE).write_text(json.dumps(dict(record), indent=2) + "\n")
    (directory / "README.md").write_text(card)


def save_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file. Raises OSError where the disk does not take it: the library has an error of its own."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, None if metadata is None else dict(metadata))
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while it is written: the kernel gives it back when this process ends, however it ends.

    A process's number would not tell: containers that share a disk have the same ones.
    """
    number = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network disk may lock no folders; then `_is_abandoned` cannot tell either
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(number)


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody writes into a temporary folder any more; False where the disk does not tell."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(number)


def _remove_abandoned(out: Path) -> None:
    """Remove temporary folders of killed edits of the same output: as large as the model, and nobody's."""
    for folder in out.parent.glob(f".{out.name}.*.partial"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
