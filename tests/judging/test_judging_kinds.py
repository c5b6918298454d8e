"""The unit of intervals and tests, against enumeration, statsmodels and planted correlations."""

from itertools import product

import numpy as np
import pytest

from judging.kinds import effective_n, icc, kind_codes, sign_flip_p


def test_prompts_without_a_kind_are_kinds_of_their_own() -> None:
    assert len(set(kind_codes(["a", "", "a", ""], 4).tolist())) == 3


def test_sign_flips_are_all_sign_changes_of_the_kinds_counted() -> None:
    differences, kinds = [1.0, 0.5, -0.5, 1.0, -1.0, 0.25, 0.5], ["a", "a", "b", "c", "c", "d", "e"]
    sums = [1.5, -0.5, 0.0, 0.25, 0.5]
    flipped = [abs(sum(sign * one for sign, one in zip(signs, sums, strict=True))) for signs in product([1, -1], repeat=5)]
    expected = np.mean([value >= abs(sum(sums)) - 1e-12 for value in flipped])
    assert sign_flip_p(differences, kinds) == pytest.approx(expected)


def test_sign_flips_of_single_prompts_are_the_exact_binomial_test() -> None:
    from scipy.stats import binomtest

    assert sign_flip_p([1.0] * 9 + [-1.0] * 2 + [0.0] * 20, None) == pytest.approx(binomtest(9, 11).pvalue)


def test_differences_that_are_no_grades_are_drawn_and_come_near_the_enumeration() -> None:
    values = np.random.default_rng(0).normal(0.5, 1, 12)
    flipped = np.abs(np.array(list(product([1, -1], repeat=12))) @ values)
    assert sign_flip_p(values.tolist(), None) == pytest.approx(np.mean(flipped >= abs(values.sum()) - 1e-9), abs=0.01)


def test_nothing_that_differs_has_p_one() -> None:
    assert sign_flip_p([0.0] * 5, ["a"] * 5) == 1.0


def test_a_null_with_kinds_is_rejected_at_its_level_and_mcnemar_rejects_too_often() -> None:
    from judging.paired import exact_mcnemar

    rng, kinds = np.random.default_rng(3), [str(number) for number in range(20) for _ in range(10)]
    over_kinds, over_prompts = [], []
    for _ in range(300):
        lean = rng.choice([0.15, 0.85], 20)  # each kind leans to one side or the other
        mine = rng.random((20, 10)) < lean[:, None]
        theirs = ~mine
        over_kinds.append(sign_flip_p((mine.astype(float) - theirs).ravel().tolist(), kinds) < 0.05)
        over_prompts.append(exact_mcnemar(mine.ravel(), theirs.ravel()) < 0.05)
    print(f"rejected: {np.mean(over_kinds):.3f} over kinds, {np.mean(over_prompts):.3f} over prompts")
    assert np.mean(over_kinds) <= 0.08
    assert np.mean(over_prompts) > 0.3


@pytest.mark.parametrize("planted", [0.0, 0.1, 0.5])
def test_the_intraclass_correlation_is_the_planted_one(planted: float) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0, planted**0.5, (400, 1)) + rng.normal(0, (1 - planted) ** 0.5, (400, 9))
    kinds = [str(number) for number in range(400) for _ in range(9)]
    assert icc(values.ravel().tolist(), kinds) == pytest.approx(planted, abs=0.04)


def test_the_intraclass_correlation_is_that_of_an_analysis_of_variance() -> None:
    from scipy.stats import f_oneway

    rng = np.random.default_rng(2)
    groups = [rng.normal(rng.normal(0, 0.6), 1, 6) for _ in range(30)]
    ratio = f_oneway(*groups).statistic
    kinds = [str(place) for place in range(30) for _ in range(6)]
    assert icc(np.concatenate(groups).tolist(), kinds) == pytest.approx((ratio - 1) / (ratio + 5))


def test_the_effective_number_is_about_that_of_kinds_where_a_kind_is_all_alike() -> None:
    values, kinds = np.repeat(np.arange(40) % 2, 5).astype(float), np.repeat(np.arange(40), 5).astype(str)
    assert effective_n(values.tolist(), kinds.tolist()) == pytest.approx(39, rel=0.01)


def test_the_effective_number_is_the_number_where_each_prompt_is_its_own_kind() -> None:
    assert effective_n([0.0, 1.0, 1.0, 0.5], None) == pytest.approx(4)


def test_equal_values_have_no_intraclass_correlation() -> None:
    assert icc([1.0] * 6, ["a", "a", "b", "b", "c", "c"]) is None
