"""Output folders: made under a temporary name and renamed when complete, and what an edit's folder holds beside weights."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from editing.errors import EditError
from editing.projection import Edit

EDIT_FILE, REPORT_FILE, BASIS_FILE = "edit.json", "edit_report.json", "edit/basis.safetensors"


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends, and is removed where it fails.

    Raises EditError where `out` exists or cannot be made, and for an error of the disk inside the block.
    """
    check_free(out)
    _remove_abandoned(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(out)
    except OSError as error:
        raise EditError(f"Could not write {out}: {error.strerror}. Nothing was left there.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raise EditError where `out` exists, or lies behind something that is no folder."""
    if out.exists():
        ours = "an edited checkpoint" if (out / EDIT_FILE).is_file() else "not one of ours"
        raise EditError(f"Output folder {out} exists already ({ours}). Choose another with --out, or remove it yourself.")
    if blocked := next((parent for parent in out.absolute().parents if parent.exists() and not parent.is_dir()), None):
        raise EditError(f"Output folder {out} cannot be made: {blocked} is a file. Choose another with --out.")


def save_edit(directory: Path, edit: Edit, record: Mapping[str, Any], card: str) -> None:
    """Write edit.json, README.md and the basis beside an edit's weights.

    The basis has a folder of its own: loaders take any safetensors at the top for weights.
    """
    from safetensors.torch import save_file

    (directory / BASIS_FILE).parent.mkdir(exist_ok=True)
    save_file({"basis": edit.basis_HK.contiguous()}, directory / BASIS_FILE)
    (directory / EDIT_FILE).write_text(json.dumps(dict(record), indent=2) + "\n")
    (directory / "README.md").write_text(card)


def _remove_abandoned(out: Path) -> None:
    """Remove temporary folders of killed edits of the same output: as large as the model, and nobody's."""
    for folder in out.parent.glob(f".{out.name}.*.partial"):
        pid = folder.name.split(".")[-2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)
