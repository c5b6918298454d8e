"""One owner of a folder at a time, by a lock beside it: emptying or removing the folder does not remove the lock.

The kernel gives the lock back when its holder ends, however it ends. Where the folder above takes no files the lock stands
inside, and `empty` leaves it there.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from engine.display.progress import say
from engine.errors import EngineError

INSIDE = ".lock"
NOT_OURS_TO_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
# Mounts whose locks keep out the processes of this machine alone, by type and option.
LOCAL = {"nfs": ("nolock", "local_lock=all", "local_lock=flock"), "lustre": ("localflock",), "cifs": ("nobrl",)}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Keep other processes out of `folder`, which need not be there; gives False where nothing can be written anyway.

    Raises EngineError where another process is at work there. A disk that takes no locks is named on stderr.
    """
    place = lock_file(folder)
    number = _taken(place, folder)
    try:
        yield number is not None
    finally:
        if number is not None:
            os.close(number)


def lock_file(folder: Path) -> Path:
    """Where the lock of a folder stands."""
    folder = folder.resolve()
    beside = folder.with_name(f".{folder.name}.lock")
    return beside if beside.exists() or os.access(folder.parent, os.W_OK) else folder / INSIDE


def is_held(folder: Path) -> bool:
    """Whether a process holds the folder's lock now."""
    try:
        number = os.open(lock_file(folder), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(number)
    return False


def empty(folder: Path) -> None:
    """Remove everything in a folder but its lock."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != INSIDE:
            entry.unlink()


def _taken(place: Path, folder: Path) -> int | None:
    """The descriptor that holds the lock; None where the lock's file cannot be made because nothing can be."""
    while True:
        number = _opened(place)
        if number is None:
            return None
        try:
            _lock(number, place, folder)
            if _is_still(number, place):
                _sign(number)
                return number
        except BaseException:
            os.close(number)
            raise
        os.close(number)  # somebody removed the file meanwhile: lock the new one


def _opened(place: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            return os.open(place, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise EngineError(f"The lock {place} is a link; expected a file. Remove it.") from None
            if error.errno not in (*NOT_OURS_TO_WRITE, errno.ENOENT):
                raise
    return None


def _lock(number: int, place: Path, folder: Path) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unsure = _local_mount(place)
    except BlockingIOError:
        raise EngineError(
            f"Another process is at work in {folder}{_owner(number)}. Wait for it, or choose another --out."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        unsure = f"its disk takes none ({error.strerror})"
    if unsure:
        say(f"lock: {folder} cannot be locked against other machines: {unsure}. See to it that one process works there at a time")


def _is_still(number: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), place.stat())
    except FileNotFoundError:
        return False


def _sign(number: int) -> None:
    """Leave who holds the lock, for the message that others get."""
    with contextlib.suppress(OSError):  # opened for reading alone
        os.ftruncate(number, 0)
        os.pwrite(number, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode(), 0)


def _owner(number: int) -> str:
    try:
        owner = json.loads(os.pread(number, 4096, 0))
        return f" (process {int(owner['pid'])} on {str(owner['host'])[:64]!r})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _local_mount(place: Path) -> str | None:
    """Why a lock on this disk says nothing to other machines, where its mount tells so."""
    try:
        lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    inside = [(where, kind, options) for _, where, kind, options, *_ in lines if place.is_relative_to(where)]
    _, kind, options = max(inside, key=lambda mount: len(mount[0]), default=("", "", ""))
    told = [option for option in options.split(",") if option in LOCAL.get(kind.rstrip("34"), ())]
    return f"it is mounted with {told[0]}" if told else None
