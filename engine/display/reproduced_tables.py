"""A published table beside ours, and the tables that there are."""

from collections.abc import Mapping

from engine.display.study_tables import plain_table
from engine.display.table import Row, Table, View


def reproduced_view(found: Row) -> View:
    """Published, ours with its interval, inside or outside, and why they may differ."""
    table = plain_table("", found)
    assert table is not None
    head = [f"{found['source']}. {found['protocol']}"]
    notes = [f"Why ours may differ: {' '.join(found['differs'])}"]
    notes += [f"{model}: {reason}" for model, reason in found["absent"].items()]
    return [*head, Table(found["title"], table.columns, table.rows, notes, 2)]


def tables_view(tables: Mapping[str, Mapping[str, str]], titles: Mapping[str, str]) -> View:
    """Every published table, with the models that it takes."""
    rows = [
        [name, titles[name], "; ".join(f"{model}: {state}" for model, state in found.items())] for name, found in tables.items()
    ]
    return [Table("Published tables", ["name", "table", "models"], rows)]
