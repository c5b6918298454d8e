"""Tables of a comparison of checkpoints: what each is and does, what its card claims, and how the edits lie to each other."""

from collections.abc import Sequence

from engine.display.study_tables import plain_table
from engine.display.table import Row, Table, View

TITLE = "Checkpoints against their base"


def compare_view(found: Row) -> View:
    """All tables of compare.json."""
    return [f"Rates by the judge '{found['judge']}'.", *compare_tables(found)]


def compare_tables(found: Row) -> list[Table]:
    """The members, and the tables of what there is beside them."""
    main = _titled(TITLE, found["rows"], [found["note"]])
    parts = [
        _titled("What the cards claim", found["claims"]),
        _titled("Principal angles between the edits' shared directions, degrees", found["angles"], keys=2),
        _titled("Given directions inside the edits'", [_without(row, "by_layer") for row in found["directions"]]),
    ]
    return [table for table in (main, *parts) if table is not None]


def _titled(title: str, rows: Sequence[Row], notes: Sequence[str] = (), keys: int = 1) -> Table | None:
    table = plain_table("", {"rows": rows})
    return None if table is None else Table(title, table.columns, table.rows, notes, keys)


def _without(row: Row, name: str) -> Row:
    return {key: value for key, value in row.items() if key != name}
