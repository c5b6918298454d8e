"""A command run in the test's own process: what a user types, without the seconds that an interpreter and torch take to start.

A test that kills a command, or looks at what it imports, starts a process.
"""

import contextlib
import contextvars
import importlib
import io
import os
import subprocess
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer

from engine.display.progress import say_once


def ran(module: str, *arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """`bin/MODULE ARGUMENTS` in `cwd` to its end: exit status, stdout, stderr. A traceback stands in stderr, with status 1."""
    command = typer.main.get_command(importlib.import_module(f"engine.commands.{module}").app)
    line = [str(argument) for argument in arguments]
    say_once.cache_clear()
    out, error = io.StringIO(), io.StringIO()
    with _in(cwd), _with(environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        # A context of its own: what a flag sets (--trust-config) ends with the command, as with its process.
        status = contextvars.copy_context().run(_status, command, module, line)
    return subprocess.CompletedProcess([module, *line], status, out.getvalue(), error.getvalue())


def _status(command: "typer.core.TyperCommand", module: str, line: list[str]) -> int:
    try:
        command.main(line, prog_name=f"bin/{module.replace('_', '-')}", standalone_mode=True)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _in(folder: Path | None) -> Iterator[None]:
    with contextlib.chdir(folder) if folder is not None else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _with(environment: Mapping[str, str]) -> Iterator[None]:
    """Variables for the time of a command; what it sets itself goes too."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
