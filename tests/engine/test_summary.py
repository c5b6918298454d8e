"""Summaries: what is counted, and what is missing rather than zero."""

from engine.summary import figures_of


def scored(compliance: float | None, coherence: float | None, declined: bool | None, **more: object) -> dict[str, object]:
    row = {
        "variant": "v",
        "variant_hash": "h",
        "form": "in_place",
        "kind": "declined",
        "split": "test",
        "empty": False,
        "finish_reason": "stop",
    }
    return row | {"compliance": compliance, "coherence": coherence, "declined": declined} | more


def test_empty_and_truncated_stay_in_and_missing_scores_are_no_zeros() -> None:
    rows = [
        scored(1.0, 1.0, False),
        scored(0.0, 1.0, True),
        scored(0.0, 0.0, False, empty=True),
        scored(0.5, 0.5, False, finish_reason="length"),
        scored(None, None, None),
    ]
    figures = figures_of(rows)
    assert (figures["n"], figures["missing"], figures["empty"], figures["truncated"]) == (5, 1, 1, 1)
    assert figures["declined"]["value"] == 1 / 4
    assert figures["compliance"]["value"] == 1.5 / 4
    assert figures["coherence"]["value"] == 2.5 / 4
    assert figures["product"]["value"] == 1.5 / 4 * 2.5 / 4
