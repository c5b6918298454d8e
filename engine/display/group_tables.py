"""How a figure's group of requests is named, and the tables of rates by the prompts' language and by judge."""

from collections.abc import Sequence

from engine.display.numbers import estimate
from engine.display.table import Row, Table

RATES = ("declined", "compliance", "coherence", "product")
BESIDE = "The same responses under each judge. Their errors stand below each judge's own table, where they are known."


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


def judges_table(summary: Row) -> Table | None:
    """Each variant's rates under every judge, one below the other; None where one judge alone gave any."""
    names = [judge["name"] for judge in summary["judges"]]
    groups: dict[tuple[str, str, str], dict[str, Row]] = {}
    for figure in summary["figures"]:
        groups.setdefault((figure["variant"], figure["variant_hash"], asked(figure)), {})[figure["judge"]] = figure
    rows = [
        [variant, requests, name, str(found[name]["n"]), *(estimate(found[name][rate]) for rate in RATES)]
        for (variant, _, requests), found in groups.items()
        for name in names
        if name in found
    ]
    if len(names) < 2 or not rows:
        return None
    return Table("Judges beside each other", ["variant", "requests", "judge", "n", *RATES], rows, [BESIDE], keys=3)
