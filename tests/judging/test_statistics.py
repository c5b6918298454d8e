"""Intervals against closed forms, and against the truth in simulated prompts that come in kinds."""

import math

import numpy as np
import pytest

from judging.statistics import MISSING, OVER_PROMPTS, Estimate, average, mean, of_grades, product_of_means, rate, share

KINDS, EACH, DRAWS = 55, 9, 1000
NAMES = [f"kind {number}" for number in range(KINDS) for _ in range(EACH)]


def beta_binomial(share_of: float, icc: float, seed: int) -> np.ndarray:
    """Successes of every prompt, (DRAWS, KINDS x EACH): each kind has a share of its own, drawn from a beta distribution."""
    rng = np.random.default_rng(seed)
    shares = np.full((DRAWS, KINDS, 1), share_of)
    if icc > 0:
        weight = (1 - icc) / icc
        shares = rng.beta(share_of * weight, (1 - share_of) * weight, (DRAWS, KINDS, 1))
    return (rng.random((DRAWS, KINDS, EACH)) < shares).reshape(DRAWS, -1)


@pytest.mark.parametrize(("successes", "total"), [(0, 500), (12, 40), (499, 500)])
def test_share_has_wilsons_interval(successes: int, total: int) -> None:
    z, p = 1.959963984540054, successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    found = share(successes, total)
    assert found.value == p
    assert found.low == pytest.approx(max(0.0, centre - half), abs=1e-12)
    assert found.high == pytest.approx(min(1.0, centre + half), abs=1e-12)


@pytest.mark.parametrize("share_of", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("icc", [0.0, 0.1, 0.3])
def test_a_rate_over_kinds_covers_the_truth_nineteen_times_in_twenty(share_of: float, icc: float) -> None:
    found = [rate(row.tolist(), NAMES) for row in beta_binomial(share_of, icc, seed=7)]
    covered = np.mean([one.low <= share_of <= one.high for one in found])
    print(f"share {share_of}, ICC {icc}: {covered:.3f} of {DRAWS} intervals cover")
    assert 0.925 <= covered <= 0.972


def test_an_interval_over_prompts_is_too_narrow_where_they_come_in_kinds() -> None:
    rows = beta_binomial(0.3, 0.3, seed=7)
    covered = np.mean([(one := rate(row.tolist())).low <= 0.3 <= one.high for row in rows])
    print(f"{covered:.3f} of the intervals over prompts cover")
    assert covered < 0.8


def test_mean_interval_is_near_the_normal_one() -> None:
    values = [0.0] * 100 + [0.5] * 100 + [1.0] * 200
    found = mean(values)
    spread = math.sqrt(sum((v - 0.625) ** 2 for v in values) / len(values) / len(values))
    assert found.value == 0.625
    assert found.low == pytest.approx(0.625 - 1.96 * spread, abs=0.005)
    assert found.high == pytest.approx(0.625 + 1.96 * spread, abs=0.005)


def test_the_product_is_the_mean_over_responses_and_the_product_of_means_has_its_own_name() -> None:
    found = of_grades([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.5])
    assert found["product"].value == 0.25
    assert found["product_of_means"].value == 0.5 * 0.625


def test_the_product_of_means_knows_that_the_columns_are_of_the_same_responses() -> None:
    grades = [0.0, 1.0] * 200
    together, against = product_of_means(grades, grades), product_of_means(grades, [1.0 - grade for grade in grades])
    assert together.value == against.value == 0.25
    # d(ab) = a db + b da: the opposed columns cancel, the equal ones add up.
    assert together.high - together.low > 0.08


def test_equal_values_have_wilsons_interval_which_has_a_width() -> None:
    found = mean([1.0] * 20)
    assert found.high == 1.0
    # Student's quantile in Wilson's formula, at 20 of 20: n / (n + t^2)
    assert found.low == pytest.approx(20 / (20 + 2.093024**2), abs=1e-5)


def test_two_equal_halves_of_a_kind_are_one_draw() -> None:
    once = mean([0.0, 1.0, 1.0, 0.0, 1.0], ["a", "b", "c", "d", "e"])
    twice = mean([0.0, 1.0, 1.0, 0.0, 1.0] * 2, ["a", "b", "c", "d", "e"] * 2)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_an_average_has_students_interval_over_kinds() -> None:
    values, kinds = [2.0, 4.0, 6.0, 8.0, 10.0, 12.0], ["a", "a", "b", "b", "c", "c"]
    found = average(values, kinds)
    error = np.std([3.0, 7.0, 11.0], ddof=1) / math.sqrt(3)
    assert found.high - 7.0 == pytest.approx(4.302653 * error, rel=1e-6)


def test_nothing_scored_is_missing_not_zero() -> None:
    assert mean([]) == share(0, 0) == product_of_means([], []) == average([]) == MISSING


def test_one_response_has_a_value_and_no_interval() -> None:
    assert mean([0.5]) == Estimate(0.5, None, None, 1, OVER_PROMPTS)


def test_one_kind_has_a_value_and_no_interval() -> None:
    assert mean([0.5, 1.0], ["a", "a"]).low is None
