"""What is said of a judge's errors."""

from typing import Any

from engine.display.run_tables import calibration_line

ESTIMATE = {"value": 0.1, "low": None, "high": None, "n": 12, "method": ""}


def entry(**more: Any) -> dict[str, Any]:
    return {"source": "base", "requests": "", "variant": "", "n": 12, "bias": {"compliance": ESTIMATE}} | more


def test_errors_are_told_apart_by_the_kind_of_request() -> None:
    entries = [entry(requests="declined"), entry(requests="answerable")]
    line = calibration_line({"labels": "mine", "by_source": entries}, "j")
    assert line.endswith("base to declined requests 0.10 (12 labels); base to answerable requests 0.10 (12 labels).")


def test_labels_that_name_no_kind_have_their_source_alone() -> None:
    assert calibration_line({"labels": "mine", "by_source": [entry()]}, "j").endswith("base 0.10 (12 labels).")
