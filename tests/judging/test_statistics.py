"""Intervals against closed forms."""

import math

import pytest

from judging.statistics import BOOTSTRAP, MISSING, Estimate, mean, product_of_means, share


@pytest.mark.parametrize(("successes", "total"), [(0, 500), (12, 40), (499, 500)])
def test_share_has_wilsons_interval(successes: int, total: int) -> None:
    z, p = 1.959963984540054, successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    found = share(successes, total)
    assert found.value == p
    assert found.low == pytest.approx(max(0.0, centre - half), abs=1e-12)
    assert found.high == pytest.approx(min(1.0, centre + half), abs=1e-12)


def test_mean_interval_is_near_the_normal_one() -> None:
    values = [0.0] * 100 + [0.5] * 100 + [1.0] * 200
    found = mean(values)
    spread = math.sqrt(sum((v - 0.625) ** 2 for v in values) / len(values) / len(values))
    assert found.value == 0.625
    assert found.low == pytest.approx(0.625 - 1.96 * spread, abs=0.005)
    assert found.high == pytest.approx(0.625 + 1.96 * spread, abs=0.005)


def test_product_resamples_rows_together() -> None:
    grades = [0.0, 1.0] * 200
    opposed = [1.0 - grade for grade in grades]
    together, against = product_of_means([grades, grades]), product_of_means([grades, opposed])
    assert together.value == against.value == 0.25
    # d(ab) = a db + b da: the opposed columns cancel, the equal ones add up.
    assert against.high - against.low < 0.02 < 0.08 < together.high - together.low


def test_nothing_scored_is_missing_not_zero() -> None:
    assert mean([]) == share(0, 0) == product_of_means([[], []]) == MISSING


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = mean([1.0] * 20)
    assert (found.low, found.high) == (1.0, 1.0)


def test_one_response_has_a_value_and_no_interval() -> None:
    assert mean([0.5]) == Estimate(0.5, None, None, 1, BOOTSTRAP)
    assert product_of_means([[0.5], [1.0]]) == Estimate(0.5, None, None, 1, BOOTSTRAP)
