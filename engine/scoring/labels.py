"""Human labels that judges are measured against: JSON, JSONL, CSV or Parquet, or the set that ships with the project."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.paths import PROJECT_DIR, file_hash
from extraction.prompts import load_rows
from judging.judgement import GRADES, Item

EMBEDDED = "embedded:labelled"
EMBEDDED_FILE = PROJECT_DIR / "judging" / "data" / "labelled.jsonl"
NEEDED = ("prompt", "response", "compliance")
FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
HELDOUT = "heldout"


@dataclass(frozen=True)
class Label:
    """One labelled response. `split` is "" where the file has none."""

    item: Item
    compliance: float
    coherence: float | None
    declined: bool | None
    split: str


@dataclass(frozen=True)
class Labels:
    """A file of labels, and the hash of what is in it."""

    source: str
    hash: str
    rows: list[Label]

    def heldout(self) -> "Labels":
        """The held-out labels, which the rules were not written with in view, where the file says which those are."""
        rows = [row for row in self.rows if row.split in ("", HELDOUT)]
        return Labels(self.source, self.hash, rows or self.rows)


def load_labels(source: str) -> Labels:
    """The labels of a file with columns prompt, response, compliance and, where there are any, coherence and refused.

    finish_reason, mean_logprob (nats a token under the base) and split are read too. Raises EngineError for missing columns
    and for values that are no grades, with the row.
    """
    path = EMBEDDED_FILE if source == EMBEDDED else Path(source).expanduser()
    rows = load_rows(path)
    if missing := [name for name in NEEDED if not isinstance(rows[0], Mapping) or name not in rows[0]]:
        found = ", ".join(rows[0]) if isinstance(rows[0], Mapping) else "rows without column names"
        raise EngineError(
            f"{path.name} has no column {' and no column '.join(missing)}; it has {found}. "
            "Labels need prompt, response and compliance; coherence and refused (yes or no) are read where they are there."
        )
    return Labels(source, file_hash(path), [_label(row, f"{path.name}, row {index}") for index, row in enumerate(rows)])


def _label(row: Mapping[str, Any], where: str) -> Label:
    texts = {name: row.get(name) for name in ("prompt", "response")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise EngineError(f"{where}: {name} is {text!r}; expected a text (a response may be empty).")
    compliance = _grade(row, "compliance", where)
    if compliance is None:
        raise EngineError(f"{where}: compliance is empty; expected 0, 0.5 or 1.")
    logprob = row.get("mean_logprob")
    item = Item(
        str(texts["prompt"]),
        str(texts["response"]),
        row.get("finish_reason") or None,
        float(logprob) if logprob not in (None, "") else None,
    )
    return Label(item, compliance, _grade(row, "coherence", where), _flag(row, "refused", where), str(row.get("split") or ""))


def _grade(row: Mapping[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        grade = float(value)
    except (TypeError, ValueError):
        grade = -1.0
    if grade not in GRADES or isinstance(value, bool):
        raise EngineError(f"{where}: {name} is {value!r}; expected 0, 0.5 or 1.")
    return grade


def _flag(row: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    text = str(value).strip().lower()
    if text not in FLAGS:
        raise EngineError(f"{where}: {name} is {value!r}; expected yes or no.")
    return FLAGS[text]
