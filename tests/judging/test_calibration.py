"""Error rates from a table, and Rogan and Gladen's correction: exact where errors are known, covering where they are not."""

import numpy as np
import pytest

from judging.calibration import corrected_share, grade_rates, yes_no_rates
from judging.statistics import share


def test_rates_by_grade_count_what_the_table_shows() -> None:
    human = [0.0] * 10 + [0.5] * 6 + [1.0] * 4 + [1.0]
    judge = [0.0] * 7 + [1.0] * 3 + [0.5] * 4 + [1.0] * 2 + [1.0] * 3 + [0.0] + [None]
    rates = grade_rates(human, judge)
    assert (rates["n"], rates["missing"], rates["table"]) == (20, 1, [[7, 0, 3], [0, 4, 2], [1, 0, 3]])
    assert rates["accuracy"]["value"] == 14 / 20
    one = rates["grades"]["1"]
    assert (one["positives"], one["false_positive"]["value"], one["false_negative"]["value"]) == (4, 5 / 16, 1 / 4)
    wilson = share(5, 16)
    assert (one["false_positive"]["low"], one["false_positive"]["high"]) == (wilson.low, wilson.high)


def test_no_positives_leave_a_rate_empty_rather_than_zero() -> None:
    rates = yes_no_rates([False, False, None], [False, True, True])
    assert (rates["n"], rates["positives"], rates["false_negative"]["value"]) == (2, 0, None)
    assert corrected_share(0.5, 100, rates).value is None


def perfect_labels(sensitivity: float, specificity: float, count: int) -> dict[str, object]:
    right, left = round(sensitivity * count), round(specificity * count)
    human = [True] * count + [False] * count
    judge = [True] * right + [False] * (count - right) + [False] * left + [True] * (count - left)
    return yes_no_rates(human, judge)


def test_the_correction_undoes_known_errors() -> None:
    rates = perfect_labels(0.8, 0.9, 1000)
    for true in (0.0, 0.2, 0.7, 1.0):
        seen = true * 0.8 + (1 - true) * 0.1
        found = corrected_share(seen, 100_000, rates)
        assert found.value == pytest.approx(true)
        assert found.low <= true <= found.high
    assert corrected_share(0.09, 500, rates).value == 0  # a little below what errors alone give: cut, not negative


def test_a_share_that_the_error_rates_cannot_give_is_not_corrected_to_certainty() -> None:
    offline = yes_no_rates([True] * 23 + [False] * 77, [True] * 9 + [False] * 91)
    assert corrected_share(0.722, 500, offline).value is None
    assert corrected_share(0.2, 500, offline).value == pytest.approx(0.2 / (9 / 23))


def test_a_judge_no_better_than_chance_corrects_nothing() -> None:
    assert corrected_share(0.5, 100, perfect_labels(0.4, 0.6, 50)).value is None


@pytest.mark.parametrize(("true", "sensitivity", "specificity"), [(0.1, 0.8, 0.9), (0.5, 0.7, 0.95), (0.9, 0.9, 0.8)])
def test_the_interval_covers_at_its_level_though_the_errors_are_estimates(
    true: float, sensitivity: float, specificity: float
) -> None:
    rng = np.random.default_rng(0)
    covered = width = 0.0
    for _ in range(1000):
        n, labels = 500, 60
        seen = rng.binomial(n, true * sensitivity + (1 - true) * (1 - specificity)) / n
        missed, alarms = rng.binomial(labels, 1 - sensitivity), rng.binomial(labels, 1 - specificity)
        rates = {
            "positives": labels,
            "negatives": labels,
            "false_positive": {"value": alarms / labels},
            "false_negative": {"value": missed / labels},
        }
        found = corrected_share(seen, n, rates)
        covered += found.low <= true <= found.high
        width += found.high - found.low
    print(f"true {true}: covered {covered / 1000:.3f}, mean width {width / 1000:.3f}")
    assert 0.93 <= covered / 1000 <= 0.985
