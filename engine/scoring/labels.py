"""Human labels that judges are measured against: JSON, JSONL, CSV or Parquet, or the set that ships with the project."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.paths import PROJECT_DIR, file_hash
from extraction.prompts import load_rows
from judging.bias import LEAST
from judging.judgement import GRADES, Item

EMBEDDED, BLIND = "embedded:labelled", "embedded:blind"
FILES = {name: PROJECT_DIR / "judging" / "data" / f"{name.removeprefix('embedded:')}.jsonl" for name in (EMBEDDED, BLIND)}
NEEDED = ("prompt", "response", "compliance", "source")
FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
HELDOUT = "heldout"


@dataclass(frozen=True)
class Label:
    """One reading of a response by one rater. Texts are "" where the file has none.

    source: whose response it is: base, edited, control, or another word; errors are never pooled over sources.
    variant, model: of the response, as rollouts name them. requests: the kind of request, declined or answerable.
    category: the prompt's kind. rater: who read it.
    """

    item: Item
    compliance: float
    coherence: float | None
    declined: bool | None
    split: str
    source: str
    variant: str = ""
    model: str = ""
    requests: str = ""
    category: str = ""
    rater: str = ""

    @property
    def unit(self) -> str:
        """What is one draw: the prompt's kind, or the response where the file names none."""
        return self.category or f"{self.variant} {self.item.prompt} {self.item.response}"


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
    """The labels of a file with columns prompt, response, compliance and source, and where there are any coherence and refused.

    finish_reason, mean_logprob (nats a token under the base), split, variant, model, kind, category, rater are read too. Raises
    EngineError for missing columns, for fewer than ten rows, and for values that are no grades, with the row.
    """
    path = FILES.get(source) or Path(source).expanduser()
    rows = load_rows(path)
    if missing := [name for name in NEEDED if not isinstance(rows[0], Mapping) or name not in rows[0]]:
        found = ", ".join(rows[0]) if isinstance(rows[0], Mapping) else "rows without column names"
        raise EngineError(
            f"{path.name} has no column {' and no column '.join(missing)}; it has {found}. "
            "Labels need prompt, response, compliance and source (base, edited, control: a judge errs differently on each); "
            "coherence and refused (yes or no) are read where they are there."
        )
    if len(rows) < LEAST:
        raise EngineError(f"{path.name} has {len(rows)} labels. Give {LEAST} or more: error rates of fewer say nothing.")
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
    named = {name: str(row.get(name) or "").strip() for name in ("split", "source", "variant", "model", "category", "rater")}
    if not named["source"]:
        raise EngineError(f"{where}: source is empty; expected whose response it is, such as base, edited or control.")
    named["requests"] = str(row.get("kind") or "").strip()
    return Label(item, compliance, _grade(row, "coherence", where), _flag(row, "refused", where), **named)


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
