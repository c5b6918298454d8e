"""A judge's errors beside figures: by source, corrected on the variant's own labels alone, and what is the judge's own."""

from typing import Any

import numpy as np
import pytest

from engine.scoring.biases import add_biases, differential, source_of
from engine.scoring.calibrations import by_source
from engine.scoring.labels import Label
from judging.judgement import Item, Judgement

Row = dict[str, Any]


def estimate(value: float, width: float = 0.05, n: int = 200) -> Row:
    return {"value": value, "low": value - width, "high": value + width, "n": n, "method": "made"}


def figure(variant: str, form: str, compliance: float) -> Row:
    rates = {name: estimate(compliance) for name in ("compliance", "coherence", "product", "declined")}
    return {"judge": "rules", "variant": variant, "form": form, "kind": "declined", **rates}


def record(source: str, variant: str, bias: float, requests: str = "declined") -> Row:
    biases = {name: estimate(bias) for name in ("compliance", "coherence", "product", "declined")}
    own = {"source": source, "requests": requests, "variant": variant, "model": "m@1" if variant else ""}
    return {**own, "n": 40, "responses": 20, "raters": ["a", "b"], "bias": biases}


def with_biases(records: list[Row]) -> list[Row]:
    figures = [figure("base", "base", 0.2), figure("mine", "in_place", 0.8), figure("random1", "in_place", 0.3)]
    add_biases(figures, [{"name": "rules", "repeats": 1, "calibration": {"by_source": records}}], "m@1")
    return figures


def test_a_figure_takes_the_errors_of_its_own_variant_before_those_of_its_source() -> None:
    figures = with_biases([record("edited", "", 0.4), record("edited", "mine", 0.3)])
    assert figures[1]["judge_bias"]["bias"]["compliance"]["value"] == 0.3
    assert figures[1]["judge_bias"]["corrected"]["compliance"]["value"] == pytest.approx(0.5)


def test_labels_of_other_responses_show_the_error_and_correct_nothing() -> None:
    found = with_biases([record("edited", "", 0.4)])[1]["judge_bias"]
    assert found["bias"]["compliance"]["value"] == 0.4
    assert found["corrected"]["compliance"]["value"] is None


def test_errors_on_other_requests_are_not_these() -> None:
    assert with_biases([record("edited", "mine", 0.4, "answerable")])[1]["judge_bias"] is None


def test_errors_of_one_source_are_not_anothers() -> None:
    figures = with_biases([record("edited", "", 0.4)])
    assert figures[0]["judge_bias"] is None
    assert figures[2]["judge_bias"] is None


def test_a_judge_that_errs_on_the_edited_alone_is_called_differential() -> None:
    figures = with_biases([record("base", "", 0.0), record("edited", "", 0.4)])
    assert {(row["variant"], row["scale"]) for row in differential(figures)} >= {("mine", "compliance")}


def test_a_judge_that_errs_alike_is_not_called_differential() -> None:
    assert differential(with_biases([record("base", "", 0.4), record("edited", "", 0.42)])) == []


def test_a_source_is_read_from_form_and_name() -> None:
    names = [("base", "base"), ("k1", "in_place"), ("shuffled2-layer9", "in_place"), ("random", "in_place")]
    found = [source_of({"variant": name, "form": form}) for name, form in names]
    assert found == ["base", "edited", "control", "control"]


def test_measured_errors_are_the_planted_ones_source_by_source() -> None:
    rng, labels, found = np.random.default_rng(0), [], []
    for source, error in (("base", 0.0), ("edited", 0.4)):
        for number in range(400):
            truth = float(rng.random() < 0.3)
            judged = 1.0 if rng.random() < error / 0.7 and truth == 0 else truth
            labels.append(Label(Item(f"p{number}", source), truth, 1.0, False, "", source))
            found.append(Judgement(judged, 1.0, False, ""))
    measured = {row["source"]: row["bias"]["compliance"]["value"] for row in by_source(labels, found)}
    assert measured["base"] == 0.0
    assert measured["edited"] == pytest.approx(0.4, abs=0.06)


def test_a_source_with_few_labels_is_left_out() -> None:
    labels = [Label(Item("p", str(number)), 1.0, 1.0, False, "", "base") for number in range(9)]
    assert by_source(labels, [Judgement(1.0, 1.0, False, "")] * 9) == []
