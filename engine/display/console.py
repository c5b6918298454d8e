"""A console that writes to stdout, and tables on it."""

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console


def print_lines(lines: Sequence[str]) -> None:
    """Sentences, as they are."""
    for line in lines:
        console_for_stdout().print(line, markup=False, soft_wrap=True)


def study_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table


LOG_WIDTH = 170


def console_for_stdout() -> "Console":
    """As wide as the terminal, or wide enough for a table where stdout is a file."""
    from rich.console import Console

    return Console(width=shutil.get_terminal_size().columns if sys.stdout.isatty() else LOG_WIDTH, highlight=False)
