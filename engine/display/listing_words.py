"""Lists of what there is, as tables: variants, judges, tasks, runs, and the parts of the cache."""

from collections.abc import Mapping, Sequence

from engine.display.table import Row, Table, View

TITLES = {"runs": "Runs", "variants": "Variants", "judges": "Judges", "tasks": "Tasks"}


def listing_view(found: Mapping[str, Sequence[Row]], *, in_words: bool) -> View:
    """A table for each list; a sentence for an empty one, and for a run that cannot be read."""
    view: list[Table | str] = []
    for name, rows in found.items():
        view += _table(name, rows, in_words=in_words) if rows else [f"{TITLES[name]}: none here."]
        view += [str(row["problem"]) for row in rows if row.get("problem")]
    return view


def cache_view(parts: Sequence[Row], folder: str) -> View:
    """The parts of the cache with their sizes."""
    if not parts:
        return [f"{folder} is empty."]
    rows = [[str(part["name"]), str(part["files"]), f"{part['size'] / 1e6:,.1f} MB", str(part["again"])] for part in parts]
    return [Table(folder, ["part", "files", "size", "what it is, and what making it again costs"], rows)]


def _table(name: str, rows: Sequence[Row], *, in_words: bool) -> list[Table | str]:
    """A list as a table; for a terminal what each is follows as a sentence, since that is what does not fit in a column."""
    columns = [column for column in rows[0] if column != "problem" and not (in_words and column == "is")]
    if len(columns) == 1:
        return ["", TITLES[name], *(f"{row['name']}: {row['is']}" for row in rows)]
    return [Table(TITLES[name], columns, [[_cell(row[column]) for column in columns] for row in rows])]


def _cell(value: object) -> str:
    """A list in few letters: whole numbers that follow each other as first-last."""
    if not isinstance(value, list | tuple):
        return str(value)
    runs: list[list[object]] = []
    for part in value:
        if runs and isinstance(part, int) and isinstance(runs[-1][-1], int) and part == runs[-1][-1] + 1:
            runs[-1].append(part)
        else:
            runs.append([part])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
