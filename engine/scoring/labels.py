"""Human labels that judges are measured against: a table file (`extraction.tables`), or the set that ships with us."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import EngineError
from engine.paths import PROJECT_DIR, file_hash, user_path
from extraction.tables import is_missing, kind_of, load_rows
from judging.bias import LEAST
from judging.judgement import GRADES, Item
from judging.outcomes import OUTCOMES, declined_of
from judging.view import kept_views, text_key

EMBEDDED, BLIND, READINGS = "embedded:labelled", "embedded:blind", "embedded:readings"
SHIPPED = (EMBEDDED, BLIND, READINGS)
FILES = {name: PROJECT_DIR / "judging" / "data" / f"{name.removeprefix('embedded:')}.jsonl" for name in SHIPPED}
NEEDED = ("prompt", "response", "compliance", "source")
FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
HELDOUT = "heldout"


@dataclass(frozen=True)
class Label:
    """One reading of a response by one rater. Texts are "" where the file has none.

    source: whose response it is: base, edited, control, or another word; errors are never pooled over sources.
    variant, model: of the response, as rollouts name them. requests: the kind of request, declined or answerable.
    category: the prompt's kind. rater: who read it. outcome: one of judging.outcomes.OUTCOMES.
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
    outcome: str | None = None

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

    finish_reason, mean_logprob (nats a token under the base), split, variant, model, kind, category, rater and outcome are read
    too. Raises EngineError for missing columns, for fewer than ten rows, and for values that are no grades, with the row's line
    or number.
    """
    path = FILES.get(source) or user_path(source)
    rows = load_rows(path)
    first = rows[0].value
    if missing := [name for name in NEEDED if not isinstance(first, Mapping) or name not in first]:
        found = ", ".join(map(str, first)) if isinstance(first, Mapping) else "rows without column names"
        raise EngineError(
            f"{path.name} has no column {' and no column '.join(missing)}; it has {found}. "
            "Labels need prompt, response, compliance and source (base, edited, control: a judge errs differently on each); "
            "coherence and refused (yes or no) are read where they are there."
        )
    if len(rows) < LEAST:
        raise EngineError(f"{path.name} has {len(rows)} labels. Give {LEAST} or more: error rates of fewer say nothing.")
    labels = [_label(row.value, row.where) for row in rows]
    return Labels(source, file_hash(path), _viewed(labels) if source in FILES else labels)


def _viewed(labels: Sequence[Label]) -> list[Label]:
    """Shipped labels with the view that comes with them."""
    views = kept_views()
    texts = [(label.item.prompt, label.item.response) for label in labels]
    items = [replace(label.item, view=views.get(text_key(*text))) for label, text in zip(labels, texts, strict=True)]
    return [replace(label, item=item) for label, item in zip(labels, items, strict=True)]


def _label(row: Any, where: str) -> Label:
    if not isinstance(row, Mapping):
        raise EngineError(f"{where}: expected an object with {', '.join(NEEDED)}, found {kind_of(row)}.")
    texts = {name: row.get(name) for name in ("prompt", "response")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise EngineError(f"{where}: {name} is {kind_of(text)}; expected a text (a response may be empty).")
    compliance = _grade(row, "compliance", where)
    if compliance is None:
        raise EngineError(f"{where}: compliance is empty; expected 0, 0.5 or 1.")
    reason = _word(row, "finish_reason", where) or None
    item = Item(str(texts["prompt"]), str(texts["response"]), reason, _number(row, "mean_logprob", where))
    named = {name: _word(row, name, where) for name in ("split", "source", "variant", "model", "category", "rater")}
    if not named["source"]:
        raise EngineError(f"{where}: source is empty; expected whose response it is, such as base, edited or control.")
    named["requests"] = _word(row, "kind", where)
    declined = declined_of(outcome := _outcome(row, where), _flag(row, "refused", where))
    return Label(item, compliance, _grade(row, "coherence", where), declined, outcome=outcome, **named)


def _outcome(row: Mapping[str, Any], where: str) -> str | None:
    outcome = _word(row, "outcome", where) or None
    if outcome is not None and outcome not in OUTCOMES:
        raise EngineError(f"{where}: outcome is {_shown(outcome)}; expected one of {', '.join(OUTCOMES)}.")
    return outcome


def _word(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if isinstance(value, list | dict):
        raise EngineError(f"{where}: {name} is {kind_of(value)}; expected a text.")
    return "" if is_missing(value) else str(value).strip()


def _number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    """A finite number; None where the row has none."""
    value: Any = row.get(name)
    if is_missing(value):
        return None
    try:
        number = math.nan if isinstance(value, bool | list | dict) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise EngineError(f"{where}: {name} is {_shown(value)}; expected a number.")
    return number


def _grade(row: Mapping[str, Any], name: str, where: str) -> float | None:
    try:
        grade = _number(row, name, where)
    except EngineError:
        grade = -1.0
    if grade is not None and grade not in GRADES:
        raise EngineError(f"{where}: {name} is {_shown(row.get(name))}; expected 0, 0.5 or 1.")
    return grade


def _flag(row: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = row.get(name)
    if is_missing(value):
        return None
    text = "" if isinstance(value, list | dict) else str(value).strip().lower().removesuffix(".0")
    if text not in FLAGS:
        raise EngineError(f"{where}: {name} is {_shown(value)}; expected yes or no.")
    return FLAGS[text]


def _shown(value: Any) -> str:
    """A value for a message: a short text or number as it is, else what it is."""
    return repr(value) if isinstance(value, str | int | float) and len(str(value)) <= 40 else kind_of(value)
