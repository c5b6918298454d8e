"""Paired comparisons against statsmodels, closed forms and planted differences."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from judging.paired import Grades, holm, mcnemar_p, product_difference, product_p


def grades(compliance: list[float], coherence: list[float] | None = None) -> Grades:
    return Grades(np.array(compliance, dtype=float), np.array(coherence or [1.0] * len(compliance), dtype=float))


def test_mcnemar_is_the_binomial_test_of_the_discordant_prompts() -> None:
    first, second = [1.0] * 12 + [0.0] * 8, [1.0] * 2 + [0.0] * 10 + [1.0] * 3 + [0.0] * 5
    expected = binomtest(10, 13).pvalue
    found = mcnemar_p(grades(first), grades(second))
    print(f"{found:.6f} against {expected:.6f}")
    assert found == pytest.approx(expected)


def test_half_grades_and_incoherent_responses_are_no_successes() -> None:
    assert list(grades([1, 1, 0.5, 1], [1, 0.5, 1, 1]).successes) == [True, False, False, True]


def test_missing_grades_leave_the_prompt_out_of_both_sides() -> None:
    first = Grades.of([(1.0, 1.0), (None, None), (1.0, 1.0), (0.0, 1.0)])
    second = Grades.of([(0.0, 1.0), (1.0, 1.0), (1.0, None), (0.0, 1.0)])
    assert first.product == pytest.approx(2 / 3)
    assert product_difference(first, second).value == pytest.approx(0.5)
    assert math.isnan(Grades.of([(None, None)]).product)


def test_holm_equals_the_step_down_by_hand() -> None:
    p = [0.04, 0.001, 0.03, 0.5]
    by_hand = [0.09, 0.004, 0.09, 0.5]  # 4 x 0.001; 3 x 0.03; then at least that: 2 x 0.04; 1 x 0.5
    assert holm(p) == pytest.approx(by_hand)
    assert holm([]) == []


def test_holm_equals_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(0).random(20) ** 3
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_the_interval_of_a_paired_difference_covers_the_truth_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        shared = rng.random(120)
        first, second = (grades(list((shared + 0.3 * rng.random(120) > bar).astype(float))) for bar in (0.45, 0.65))
        truth = _expected(0.45) - _expected(0.65)
        interval = product_difference(first, second)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= truth <= interval.high
    print(f"{covered} of 300 intervals cover")
    assert 270 <= covered <= 297


def _expected(bar: float) -> float:
    """P(u + 0.3 v > bar) for uniform u, v and 0.3 <= bar <= 1."""
    return 1 - bar + 0.15


def test_a_paired_difference_covers_the_truth_where_prompts_come_in_kinds() -> None:
    rng, kinds = np.random.default_rng(2), tuple(str(number) for number in range(55) for _ in range(9))
    covered = 0
    for _ in range(400):
        shared = rng.beta(2, 2, (55, 1))  # how ready each kind is to be complied with, ICC 0.2
        first, second = (np.ravel(rng.random((55, 9)) < power) for power in (shared**0.5, shared))
        found = product_difference(*(Grades(side.astype(float), np.ones(495), kinds) for side in (first, second)))
        covered += found.low <= TRUE_DIFFERENCE <= found.high
    print(f"{covered} of 400 intervals cover")
    assert 368 <= covered <= 392


TRUE_DIFFERENCE = math.gamma(2.5) / math.gamma(4.5) * math.gamma(4) - 0.5  # E[sqrt b] - E[b] for b ~ Beta(2, 2)


def test_a_difference_of_equal_grades_has_a_width() -> None:
    same = grades([1.0] * 10)
    found = product_difference(same, grades([1.0] * 10))
    assert found.value == 0.0
    assert found.high - found.low > 0.1


def test_the_test_of_equal_products_takes_a_kind_as_one_draw() -> None:
    compliance = np.array([1.0] * 8 + [0.0] * 2)
    together = Grades(compliance, np.ones(10), tuple("aaaaabbbbb"))
    other = Grades(1 - compliance, np.ones(10), tuple("aaaaabbbbb"))
    assert product_p(together, other) == 0.5  # two kinds: four sign changes, two as far as this
