"""Turn refusals/*.toml, and templates.toml for inability, into refusals/KIND_SPLIT.jsonl (run: python3 build_refusals.py).

Each row holds a request that an assistant may decline, its answerable twin, and for some kinds the system text that both
stand under. A row's category is its template. No two splits share a template, and no prompt stands twice.
"""

import json
import tomllib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "refusals"
SIZES = {"train": 48, "selection": 24, "test": 40}
INABILITY = "inability"
Row = dict[str, str]
Template = list[str | list[str]]


def filled(template: Template, category: str) -> Iterator[Row]:
    """A template's rows: [system, ] declined, answered, fillers. A filler is {x}, or `{x}|{y}`."""
    *texts, fillers = template
    names = ("system", "declined", "answered")[-len(texts) :]
    for filler in fillers:
        x, _, y = filler.partition("|")
        yield {name: str(text).format(x=x, y=y or x) for name, text in zip(names, texts, strict=True)} | {"category": category}


def written(kind: str) -> dict[str, list[Row]]:
    """The rows of a kind that has a file of templates, by split."""
    table: dict[str, list[Template]] = tomllib.loads((FOLDER / f"{kind}.toml").read_text(encoding="utf-8"))
    return {
        split: [row for number, one in enumerate(table[split], 1) for row in filled(one, f"{split} {number:02d}")]
        for split in SIZES
    }


def of_inability() -> dict[str, list[Row]]:
    """The rows of inability, from the run's own templates: those of training, and of selection by halves of the kinds."""
    table = tomllib.loads((HERE / "templates.toml").read_text(encoding="utf-8"))
    kinds = [kind for kind in sorted(table["kinds"]) if table["kinds"][kind].get("selection")]
    chosen = kinds[:: len(kinds) // SIZES["selection"]][: SIZES["selection"]]
    groups = {"train": kinds, "selection": chosen, "test": [kind for kind in kinds if kind not in chosen]}
    return {split: in_turn(table, groups[split], "train" if split == "train" else "selection", SIZES[split]) for split in SIZES}


def in_turn(table: dict[str, Any], kinds: list[str], split: str, size: int) -> list[Row]:
    """Rows of the kinds in turn: their first templates, then their second ones, with other values."""
    rows: list[Row] = []
    for step in count():
        for kind in kinds:
            templates = table["kinds"][kind][split]
            if step < len(templates) and len(rows) < size:
                values = {name: slot[(step + len(rows)) % len(slot)] for name, slot in table["slots"].items()}
                declined, answered = (text.format(**values) for text in templates[step])
                rows.append({"declined": declined, "answered": answered, "category": kind})
        if len(rows) == size:
            return rows
        if step > size:
            raise ValueError(f"{split} has {len(rows)} of {size} rows")
    raise AssertionError


def main() -> None:
    """Write every kind's three files."""
    kinds = {INABILITY: of_inability()} | {file.stem: written(file.stem) for file in sorted(FOLDER.glob("*.toml"))}
    for kind, splits in kinds.items():
        for split, rows in splits.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (FOLDER / f"{kind}_{split}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
