"""A judge's errors on labels, and the figures less them, against closed forms and planted errors."""

import numpy as np
import pytest

from judging.bias import apart, bias, bias_by_scale, corrected, differs
from judging.statistics import MISSING, Estimate, rate


def test_the_bias_is_the_mean_of_judge_less_label() -> None:
    assert bias([1.0, 1.0, 0.5, None], [0.0, 1.0, 0.0, 1.0], list("abcd")).value == pytest.approx(0.5)


def test_two_raters_of_one_response_are_one_draw() -> None:
    once = bias([1.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0], list("abcd"))
    twice = bias([1.0, 0.0, 1.0, 0.5] * 2, [0.0, 0.0, 1.0, 1.0] * 2, list("abcd") * 2)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_a_corrected_rate_covers_the_truth_where_the_judge_errs() -> None:
    rng, covered = np.random.default_rng(4), 0
    for _ in range(300):
        truth = rng.random(500) < 0.4
        judged = np.where(truth, rng.random(500) < 0.95, rng.random(500) < 0.5)  # half of what does not comply is taken for it
        labelled = rng.choice(500, 80, replace=False)
        sides = (judged[labelled].astype(float).tolist(), truth[labelled].astype(float).tolist())
        found = corrected(rate(judged.tolist()), bias(*sides, [str(place) for place in labelled]))
        covered += found.low <= truth.mean() <= found.high
    print(f"{covered} of 300 corrected intervals cover")
    assert covered >= 282


def test_a_corrected_rate_stays_between_nought_and_one() -> None:
    found = corrected(Estimate(0.05, 0.02, 0.1, 100), Estimate(0.3, 0.2, 0.4, 40))
    assert (found.value, found.low) == (0.0, 0.0)


def test_what_has_no_labels_is_not_corrected() -> None:
    assert corrected(Estimate(0.5, 0.4, 0.6, 100), MISSING) == MISSING


def test_two_estimates_differ_where_the_interval_of_their_difference_leaves_nought_out() -> None:
    assert differs(Estimate(0.42, 0.25, 0.59, 38), Estimate(-0.02, -0.14, 0.12, 32))
    assert not differs(Estimate(0.1, -0.1, 0.3, 38), Estimate(0.0, -0.2, 0.2, 32))


def test_the_difference_of_independent_estimates_adds_their_half_widths_in_squares() -> None:
    found = apart(Estimate(0.5, 0.2, 0.6, 10), Estimate(0.1, 0.06, 0.5, 10))
    assert found.low == pytest.approx(0.4 - 0.5)
    assert found.high == pytest.approx(0.4 + np.hypot(0.1, 0.04))


def test_a_missing_grade_leaves_the_product_out() -> None:
    found = bias_by_scale([(1.0, None, False)] * 3, [(0.0, 1.0, True)] * 3, list("abc"))
    assert found["product"]["value"] is None
    assert found["declined"]["value"] == -1.0
