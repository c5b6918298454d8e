"""What bin/bench prints."""

from engine.display.ability import COLUMNS, HOW_TO_READ, Row, bench_cells, unpaired_lines
from engine.display.console import console_for_stdout, print_lines, study_table


def print_bench(result: Row) -> None:
    """The paired table."""
    console_for_stdout().print(study_table(COLUMNS, bench_cells(result)))
    print_lines(unpaired_lines(result))
    print_lines([HOW_TO_READ])
