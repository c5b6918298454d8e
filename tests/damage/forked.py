"""Small runs in processes of their own, forked from one that has imported everything: a start takes milliseconds."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.small_run", "torch", "safetensors.torch", "engine.rollout.stages", "matplotlib.pyplot"])
PATIENCE_S = 60.0


class Command:
    """A small run under way: its exit status, and what it said on stderr."""

    def __init__(self, folder: Path, out: Path, *, clean: bool = False, max_tokens: int = 16, pause_s: float = 0.0) -> None:
        self.log = folder / f"{time.time_ns()}.log"
        arguments = (folder, out, clean, max_tokens, pause_s)
        self.process: BaseProcess = CONTEXT.Process(target=_command, args=(str(self.log), arguments))
        self.process.start()

    def wait(self) -> int:
        self.process.join(PATIENCE_S)
        assert self.process.exitcode is not None, "a run hangs"
        return int(self.process.exitcode)

    def signal(self, number: int) -> None:
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


def _command(log: str, arguments: tuple[Path, Path, bool, int, float]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import typer

    from tests.small_run import main

    status = 0
    with open(log, "w", buffering=1) as stream, contextlib.redirect_stderr(stream):
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            main(*arguments)
        except typer.Exit as end:
            status = end.exit_code
        except KeyboardInterrupt:  # before or after the command's own handling
            status = 130
    sys.exit(status)
