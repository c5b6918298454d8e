"""One table in its forms: each is read back by a reader of that form."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from engine.display.console import view_as_text
from engine.display.run_tables import summary_view
from engine.display.table import Table, as_csv, as_html, as_latex, as_markdown, as_text, view_as
from tests.engine.report.made import summary

WIDE = Table(
    "Effect & more",
    ["variant", "requests", "n", "compliance, by the judge", "coherence", "product less the base's", "p (Holm)"],
    [
        ["base", "declined", "500", "0.188 [0.155, 0.223]", "0.932 [0.913, 0.950]", "-", "-"],
        [
            "layer 14 | 50%_a",
            "answerable",
            "200",
            "0.872 [0.846, 0.896]",
            "0.892 [0.870, 0.912]",
            "0.684 [0.640, 0.724]",
            "< 0.0001",
        ],
    ],
    ["In brackets: 95 % intervals over requests, which are resampled together with the base's own."],
    keys=2,
)


@pytest.mark.parametrize("width", [60, 80, 100, 170])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, as_text(WIDE, width).splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80, 100, 170])
def test_no_cell_is_cut_at_any_width(width: int) -> None:
    assert [cell for row in WIDE.rows for cell in row if cell not in as_text(WIDE, width)] == []


def test_every_part_names_its_rows() -> None:
    parts = as_text(WIDE, 80).split("\n\n")
    assert [("base" in part, "answerable" in part) for part in parts] == [(True, True)] * len(parts)


def test_a_table_that_fits_stands_in_one_part() -> None:
    assert as_text(WIDE, 170).count("\n\n") == 0


def test_headings_wrap_between_words() -> None:
    words = set(re.findall(r"\S+", " ".join(as_text(WIDE, 80).splitlines())))
    assert {word for name in WIDE.columns for word in name.split()} <= words


def test_csv_reads_back() -> None:
    assert list(csv.reader(io.StringIO(as_csv(WIDE)))) == [WIDE.columns, *WIDE.rows]


def test_markdown_has_a_cell_for_each_column() -> None:
    rows = [line for line in as_markdown(WIDE).splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", row)) - 2 for row in rows} == {len(WIDE.columns)}


def test_latex_escapes_what_it_would_read() -> None:
    assert r"layer 14 | 50\%\_a" in as_latex(WIDE) and r"Effect \& more" in as_latex(WIDE)


def test_html_reads_back() -> None:
    cells: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            cells.append(data)

    Reader().feed(as_html(WIDE))
    assert [cell for row in WIDE.rows for cell in row] == [cell for cell in cells if cell.strip()][-14:]


def test_a_view_in_csv_is_its_tables_alone() -> None:
    assert view_as(["a sentence", WIDE], "csv") == as_csv(WIDE)


def test_a_runs_summary_fits_eighty_columns() -> None:
    text = view_as_text(summary_view(summary("smollm2_135m_k1", None)), 80)
    assert max(map(len, text.splitlines())) <= 80
