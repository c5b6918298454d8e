"""What can happen to a file on a disk, each as a function of its path. Whole content that is only elsewhere is no damage."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Damage = Callable[[Path], None]


def truncate(share: float) -> Damage:
    def damage(file: Path) -> None:
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * share)])

    return damage


def flip(share: float) -> Damage:
    """One bit of one byte, `share` of the way into the file."""

    def damage(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[min(int(len(data) * share), len(data) - 1)] ^= 1
        file.write_bytes(data)

    return damage


def foreign(file: Path) -> None:
    """Another's file of the same form."""
    if file.suffix == ".parquet":
        pq.write_table(pa.table({"name": ["a", "b"]}), file)
    elif file.suffix == ".safetensors":
        import torch
        from safetensors.torch import save_file

        save_file({"x": torch.ones(2)}, file)
    else:
        file.write_text('{"format": "other/1"}' if file.suffix == ".json" else "another's text")


def newer(file: Path) -> None:
    """A file of a version that is still to come."""
    if file.suffix == ".json":
        file.write_text('{"format": "refusal-run/99", "kind": "none of ours"}')
    elif file.suffix == ".parquet":
        table = pq.read_table(file)
        pq.write_table(table.append_column("of_tomorrow", pa.array([1] * len(table))), file)
    else:
        file.write_bytes(file.read_bytes() + b"<!-- of tomorrow -->")


def instead(make: Callable[[Path], object]) -> Damage:
    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


DAMAGES: dict[str, Damage] = {
    "cut": truncate(0.5),
    "last byte gone": truncate(0.999),
    "empty": truncate(0.0),
    "flipped early": flip(0.1),
    "flipped": flip(0.5),
    "flipped late": flip(0.93),
    "foreign": foreign,
    "newer": newer,
    "a link to nowhere": instead(lambda file: file.symlink_to("nowhere")),
    "a link to a device": instead(lambda file: file.symlink_to("/dev/zero")),
    "a pipe": instead(lambda file: os.mkfifo(file)),
    "a folder": instead(lambda file: file.mkdir()),
}


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, symlinks=True))
