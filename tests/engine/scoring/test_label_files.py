"""Label files: every form of a table is read, and a value that is no grade is named with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.scoring.labels import load_labels

LABEL = {"prompt": "p", "response": "r", "compliance": 1, "source": "base"}


def label_file(folder: Path, *last: Any) -> str:
    """Eleven labels and the one that is given, as JSONL."""
    file = folder / "labels.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in [LABEL] * 11 + list(last)))
    return str(file)


def test_labels_are_read_from_tabs(tmp_path: Path) -> None:
    (tmp_path / "labels.TSV").write_text("prompt\tresponse\tcompliance\tsource\trefused\n" + "p\tr\t0.5\tbase\tyes\n" * 10)
    rows = load_labels(str(tmp_path / "labels.TSV")).rows
    assert [(row.compliance, row.declined) for row in rows] == [(0.5, True)] * 10


def test_what_pandas_writes_for_a_missing_value_is_missing(tmp_path: Path) -> None:
    nan = float("nan")
    missing = {"coherence": nan, "refused": nan, "mean_logprob": nan, "category": nan, "finish_reason": nan}
    found = load_labels(label_file(tmp_path, LABEL | missing)).rows[-1]
    assert (found.coherence, found.declined, found.item.mean_logprob, found.category) == (None, None, None, "")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["p", "r", 1], "line 12: expected an object with prompt, response, compliance, source, found a list"),
        (LABEL | {"compliance": "0.7"}, "line 12: compliance is '0.7'; expected 0, 0.5 or 1"),
        (LABEL | {"compliance": 10**400}, "line 12: compliance is int; expected 0, 0.5 or 1"),
        (LABEL | {"compliance": True}, "line 12: compliance is True; expected 0, 0.5 or 1"),
        (LABEL | {"mean_logprob": "low"}, "line 12: mean_logprob is 'low'; expected a number"),
        (LABEL | {"mean_logprob": [1]}, "line 12: mean_logprob is a list; expected a number"),
        (LABEL | {"refused": {"a": 1}}, "line 12: refused is an object; expected yes or no"),
        (LABEL | {"response": None}, "line 12: response is null; expected a text"),
        (LABEL | {"source": ["base"]}, "line 12: source is a list; expected a text"),
    ],
)
def test_a_value_that_is_no_label_is_named_with_its_line(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(EngineError) as caught:
        load_labels(label_file(tmp_path, row))
    assert message in str(caught.value)
