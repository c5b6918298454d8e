"""How a figure's group of requests is named, and the table of rates by the prompts' language."""

from collections.abc import Sequence

from engine.display.numbers import estimate
from engine.display.table import Row, Table

RATES = ("declined", "compliance", "coherence", "product")


def asked(figure: Row) -> str:
    """The kind of request, and whether its kinds made the directions."""
    condition = f", {figure['condition']}" if figure.get("condition") else ""
    return figure["kind"] + (", kinds of the directions" if figure["split"] == "test_seen_kinds" else "") + condition


def language_table(figures: Sequence[Row]) -> Table | None:
    """Each figure's rates by the language that prompts name; None where no figure has prompts of two."""
    rows = [
        [figure["variant"], asked(figure), found["language"] or "not named", str(found["n"])]
        + [estimate(found[name]) for name in RATES]
        for figure in figures
        for found in figure.get("languages") or []
    ]
    if not rows:
        return None
    note = "By the column `language` of the prompts, not by what was answered in it."
    return Table("By language", ["variant", "requests", "language", "n", *RATES], rows, [note], keys=3)
