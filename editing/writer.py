"""Writes an edited checkpoint: the base's files copied, the edited tensors' byte ranges written over, then one rename.

An edit keeps every shape and dtype, so headers, index and all other bytes stay as they are. One tensor is in memory at
a time. Until the rename the work is in a temporary folder beside the target, which any failure removes.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editing.checkpoint import Checkpoint, free_bytes
from editing.errors import EditError
from editing.plan import EditPlan
from editing.projection import Edit, check_edit, project_out

EDIT_FILE = "edit.json"
CARRIED_NOT = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


def write_edited(
    checkpoint: Checkpoint,
    plan: EditPlan,
    edit: Edit,
    out: Path,
    *,
    record: Mapping[str, Any],
    card: str,
    on_tensor: Callable[[str], None] = lambda name: None,
) -> None:
    """Write the edited checkpoint to `out`, a folder that does not exist yet.

    `record` becomes edit.json, `card` the README.md; `on_tensor` is told each edited tensor's name. Raises EditError
    for an unfit basis, an existing folder, an output inside the base, or too little space; nothing is left behind.
    """
    check_edit(edit, checkpoint.hidden_size)
    check_output(checkpoint, out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir(parents=True)
        _copy_files(checkpoint, temporary)
        for name in plan.edited:
            _overwrite(checkpoint, temporary, name, project_out(checkpoint.read(name), edit))
            on_tensor(name)
        (temporary / EDIT_FILE).write_text(json.dumps(dict(record), indent=2) + "\n")
        (temporary / "README.md").write_text(card)
        temporary.rename(out)
    except OSError as error:
        raise EditError(f"Could not write {out}: {error.strerror}. Nothing was left there.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_output(checkpoint: Checkpoint, out: Path) -> None:
    """Raise EditError unless `out` is free, outside the base folder, and on a disk with room for the checkpoint."""
    if out.exists():
        ours = "an edited checkpoint" if (out / EDIT_FILE).is_file() else "not one of ours"
        raise EditError(f"Output folder {out} exists already ({ours}). Choose another with --out, or remove it yourself.")
    base = checkpoint.directory.resolve()
    if base == out.resolve() or base in out.resolve().parents:
        raise EditError(f"Output folder {out} lies inside the base checkpoint {base}. Choose another with --out.")
    free = free_bytes(out)
    if free < checkpoint.num_bytes:
        raise EditError(
            f"No room for {out}: {checkpoint.num_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free. "
            "Free some space or choose another disk with --out."
        )


def _copy_files(checkpoint: Checkpoint, target: Path) -> None:
    for file in checkpoint.files:
        shutil.copyfile(file, target / file.name)
    for file in sorted(checkpoint.directory.iterdir()):
        if file.is_file() and not file.name.startswith(".") and file.suffix not in CARRIED_NOT:
            shutil.copyfile(file, target / ("BASE_README.md" if file.name == "README.md" else file.name))


def _overwrite(checkpoint: Checkpoint, target: Path, name: str, edited: Tensor) -> None:
    entry = checkpoint.tensors[name]
    data = edited.contiguous().view(torch.uint8).flatten().numpy().tobytes()
    with (target / entry.file.name).open("r+b") as stream:
        stream.seek(entry.begin)
        stream.write(data)
