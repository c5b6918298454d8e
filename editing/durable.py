"""Files that outlive a power cut: their bytes are on the disk before they take their name, and the name after that."""

import errno
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file, or a folder with everything below it, to the disk. Links are left alone. Raises OSError."""
    if path.is_symlink():
        return
    if path.is_dir():
        for entry in path.iterdir():
            sync(entry)
    _flush(path)


def rename_synced(temporary: Path, path: Path) -> None:
    """Give a file or folder its name, with its content and the name on the disk when this returns. Raises OSError."""
    sync(temporary)
    temporary.rename(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network disks flush no folders
            raise
    finally:
        os.close(number)
