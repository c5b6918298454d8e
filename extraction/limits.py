"""Tries work of a stranger's making in a process of its own, under a limit of time and memory, before it is done here.

A chat template is a program: three nested loops of it end in no lifetime, and one product of a text fills any memory.
"""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS, BYTES = 10, 1 << 30
POLL_S = 0.002
OUT_OF_MEMORY, RAISED = 3, 4
MOST_WORDS = 4000  # of an error: fewer than a pipe holds


@dataclass(frozen=True)
class Trial:
    """How work ended. limit: the limit that it went beyond, in words. error: what it raised. None and None: it came through."""

    limit: str | None = None
    error: str | None = None


def tried(work: Callable[[], object], seconds: float = SECONDS, size: int = BYTES) -> Trial:
    """Do work in another process, within `seconds` of computing and `size` bytes more memory than there are in use."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _do(work, seconds, size, writing)
    os.close(writing)
    with open(reading, "rb") as said:
        status = _wait(child, 2 * seconds)  # a busy machine gives a process half of the time
        words = said.read(MOST_WORDS).decode("utf-8", "replace")
    if status is None or os.WIFSIGNALED(status):
        return Trial(limit=f"it did not end within {seconds:g} s")
    if os.WEXITSTATUS(status) == OUT_OF_MEMORY:
        return Trial(limit=f"it took more than {size / 2**30:g} GiB of memory")
    return Trial(error=words if os.WEXITSTATUS(status) == RAISED else None)


def _wait(child: int, seconds: float) -> int | None:
    """The child's exit status; None where it had to be killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(POLL_S)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _do(work: Callable[[], object], seconds: float, size: int, writing: int) -> None:
    """The child: it touches nothing of the parent's but a copy of its memory, and leaves without any clean-up."""
    status = 0
    try:
        with open("/proc/self/statm") as pages:
            used = int(pages.read().split()[0]) * resource.getpagesize()
        for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, int(seconds)), (resource.RLIMIT_AS, used + size)):
            with contextlib.suppress(ValueError, OSError):  # a lower limit holds already
                resource.setrlimit(limit, (most, most))
        work()
    except MemoryError:
        status = OUT_OF_MEMORY
    except BaseException as error:  # whatever it is: it is told, and not done again without the limits
        status = OUT_OF_MEMORY if isinstance(error.__cause__, MemoryError) else RAISED
        os.write(writing, str(error).encode("utf-8", "replace")[:MOST_WORDS])
    finally:
        os._exit(status)
