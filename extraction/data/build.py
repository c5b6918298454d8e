"""Turn templates.toml into five JSONL files of prompts next to this script (run: python3 build.py).

train_pairs / selection_pairs hold a declined prompt and its answerable twin; test_requests holds
undoable requests, test_answerable doable ones, unrelated doable ones that are nobody's twin.
"""

import json
import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = 20
SLOT = re.compile(r"\{(\w+)\}")
# split: (output file, number of rows, names of the text columns)
SPLITS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "train": ("train_pairs.jsonl", 256, ("declined", "answered")),
    "selection": ("selection_pairs.jsonl", 128, ("declined", "answered")),
    "test": ("test_requests.jsonl", 500, ("prompt",)),
    "test_answerable": ("test_answerable.jsonl", 200, ("prompt",)),
    "unrelated": ("unrelated.jsonl", 128, ("prompt",)),
}
Texts = tuple[str, ...]
Row = dict[str, str]


def normal(text: str) -> str:
    """The text without case and punctuation: what must differ between prompts."""
    return " ".join(re.findall(r"[\w{}]+", text.lower()))


def fills(texts: Texts, slots: dict[str, list[str]], rng: random.Random) -> list[Texts]:
    """All fillings of one template; its slots step through their values together."""
    names = sorted({name for text in texts for name in SLOT.findall(text)})
    start = {name: rng.randrange(len(slots[name])) for name in names}
    count = max((len(slots[name]) for name in names), default=1)
    values = [{n: slots[n][(start[n] + i) % len(slots[n])] for n in names} for i in range(count)]
    return [tuple(text.format(**value) for text in texts) for value in values]


def rows_of(kind: str, split: str, filled: list[list[Texts]]) -> Iterator[Row]:
    """Rows of one kind, taking one filling of each template in turn."""
    for step in range(max(map(len, filled))):
        for number, texts in enumerate(filled):
            if step < len(texts):
                row = dict(zip(SPLITS[split][2], texts[step], strict=True))
                yield {**row, "category": kind, "template": f"{kind}/{split}/{number}"}


def draw(sources: list[Iterator[Row]], columns: Texts, count: int, seen: set[str]) -> list[Row]:
    """Take rows from the kinds in turn, leaving out rows with a prompt already used."""
    rows: list[Row] = []
    while len(rows) < count and sources:
        for source in list(sources):
            keys: set[str] = set()
            row = next((r for r in source if not (keys := {normal(r[c]) for c in columns}) & seen), None)
            if row is None:
                sources.remove(source)
            elif len(rows) < count:
                rows.append(row)
                seen |= keys
    if len(rows) != count:
        raise ValueError(f"only {len(rows)} of {count} rows")
    return rows


def main() -> None:
    """Read templates.toml, check it, and write the five files."""
    data = tomllib.loads((HERE / "templates.toml").read_text(encoding="utf-8"))
    rng, seen, used = random.Random(SEED), set[str](), list[str]()
    for split, (file, count, columns) in SPLITS.items():
        sources: list[Iterator[Row]] = []
        for kind, groups in rng.sample(sorted(data["kinds"].items()), len(data["kinds"])):
            texts = [(t,) if isinstance(t, str) else tuple(t) for t in groups.get(split, [])]
            used += [normal(text) for template in texts for text in template]
            if texts:
                sources.append(rows_of(kind, split, [fills(t, data["slots"], rng) for t in texts]))
        rows = draw(sources, columns, count, seen)
        (HERE / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if repeated := {text for text in used if used.count(text) > 1}:
        raise ValueError(f"templates used twice: {sorted(repeated)}")
    if len(seen) != sum(count * len(columns) for _, count, columns in SPLITS.values()):
        raise ValueError("prompts are not all distinct")


if __name__ == "__main__":
    main()
