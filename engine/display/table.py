"""A table of text, and the forms it can take: terminal, CSV, Markdown, LaTeX, HTML."""

import csv
import html
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""A table of a JSON file, as it is shown."""
GAP = "  "
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; `notes` are sentences below. The first `keys` columns name a row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    keys: int = 1


View = Sequence[Table | str]
"""What a command shows: tables and sentences, in order."""


def as_text(table: Table, width: int) -> str:
    """For a terminal of `width` columns: nothing is cut. What does not fit follows below, each part with the naming columns."""
    headings = [_heading(name, [row[place] for row in table.rows]) for place, name in enumerate(table.columns)]
    sizes = [max(map(len, [*heading, *(row[place] for row in table.rows)]), default=0) for place, heading in enumerate(headings)]
    parts = [_part(table, headings, sizes, places) for places in _places(sizes, table.keys, width)]
    title = [table.title] if table.title else []
    return "\n".join([*title, "\n\n".join(parts), *(wrapped(note, width) for note in table.notes)])


def wrapped(text: str, width: int) -> str:
    """A sentence in lines of `width`, broken between words alone: a name, a flag or a path stays whole."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def as_csv(table: Table) -> str:
    """The columns' names, then the rows."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([table.columns, *table.rows])
    return stream.getvalue().rstrip("\n")


def as_markdown(table: Table) -> str:
    """A pipe table under its title."""
    lines = [
        [cell.replace("|", r"\|").replace("\n", " ") for cell in row]
        for row in [table.columns, ["---"] * len(table.columns), *table.rows]
    ]
    title = [f"**{table.title}**", ""] if table.title else []
    return "\n".join([*title, *(f"| {' | '.join(line)} |" for line in lines), *(f"\n{note}" for note in table.notes)])


def as_latex(table: Table) -> str:
    """A table for the booktabs package, with title and notes as its caption."""
    rows = [" & ".join(map(_escape, row)) + r" \\" for row in [table.columns, *table.rows]]
    caption = _escape(" ".join([f"{table.title}.", *table.notes] if table.title else table.notes))
    body = ["\\toprule", rows[0], "\\midrule", *rows[1:], "\\bottomrule"]
    tabular = [f"\\begin{{tabular}}{{{'l' * len(table.columns)}}}", *body, "\\end{tabular}"]
    return "\n".join(["\\begin{table}", *tabular, f"\\caption{{{caption}}}", "\\end{table}"])


def as_html(table: Table) -> str:
    """A table element, with title and notes as its caption."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    caption = html.escape(" ".join([f"{table.title}.", *table.notes] if table.title else table.notes))
    body = "\n".join(row(cells, "td") for cells in table.rows)
    return (
        f"<table>\n<caption>{caption}</caption>\n<thead>{row(table.columns, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    )


FORMATS: dict[str, Callable[[Table], str]] = {
    "csv": as_csv,
    "markdown": as_markdown,
    "latex": as_latex,
    "html": as_html,
}


def view_as(view: View, form: str) -> str:
    """The tables of a view in one of FORMATS, with an empty line between; sentences are for the terminal and Markdown."""
    blocks = [block if isinstance(block, str) else FORMATS[form](block) for block in view]
    kept = [text for text, block in zip(blocks, view, strict=True) if form == "markdown" or isinstance(block, Table)]
    return "\n\n".join(kept)


def _escape(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)


def _heading(name: str, cells: Sequence[str]) -> list[str]:
    """A column's name in lines no wider than its cells, where its words allow."""
    return textwrap.wrap(name, max(map(len, [*cells, *name.split()]), default=1), break_on_hyphens=False) or [""]


def _places(sizes: Sequence[int], keys: int, width: int) -> list[list[int]]:
    """Which columns stand side by side: the naming ones, and as many others as fit."""
    naming = list(range(min(keys, len(sizes))))
    fixed = sum(sizes[place] + len(GAP) for place in naming) - len(GAP)
    parts, used = [list(naming)], fixed
    for place in range(len(naming), len(sizes)):
        if used + len(GAP) + sizes[place] > width and len(parts[-1]) > len(naming):
            parts.append(list(naming))
            used = fixed
        parts[-1].append(place)
        used += len(GAP) + sizes[place]
    return parts


def _part(table: Table, headings: Sequence[list[str]], sizes: Sequence[int], places: Sequence[int]) -> str:
    height = max(len(headings[place]) for place in places)
    top = [[""] * (height - len(headings[place])) + headings[place] for place in places]
    lines = [*zip(*top, strict=True), ["-" * sizes[place] for place in places]]
    lines += [[row[place] for place in places] for row in table.rows]
    return "\n".join(
        GAP.join(cell.ljust(sizes[place]) for cell, place in zip(line, places, strict=True)).rstrip() for line in lines
    )
