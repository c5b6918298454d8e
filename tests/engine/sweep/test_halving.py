"""Successive halving on synthetic grades with a known best."""

import numpy as np
import pytest

from engine.errors import EngineError
from engine.sweep.halving import judge_round, rounds
from judging.paired import Grades


def race(rates: dict[str, float], *, prompts: int, first: int, keep: int, seed: int) -> tuple[list[str], int]:
    """Who is left, and how many responses it took."""
    rng = np.random.default_rng(seed)
    hard = rng.random(prompts)  # prompts differ in how hard they are, for all candidates alike
    outcomes = {name: (0.5 * hard + 0.5 * rng.random(prompts) < rate).astype(float) for name, rate in rates.items()}
    left, spent, before = list(rates), 0, 0
    for size in rounds(first, prompts):
        spent += len(left) * (size - before)
        before = size
        verdicts = judge_round({name: Grades(outcomes[name][:size], np.ones(size)) for name in left}, keep=keep)
        left = [verdict.name for verdict in verdicts if verdict.kept]
        if len(left) <= keep:
            break
    return left, spent


def test_rounds_double_until_the_prompts_run_out() -> None:
    assert rounds(16, 128) == [16, 32, 64, 128]
    assert rounds(32, 100) == [32, 64, 100]
    assert rounds(10, 10) == [10]
    with pytest.raises(EngineError, match=r"needs 16 selection prompts \(sweep\.first_round\) and there are 12"):
        rounds(16, 12)


def test_the_best_candidate_survives_at_a_fraction_of_the_cost() -> None:
    rates = {f"layer{number}": 0.2 + 0.02 * number for number in range(15)} | {"best": 0.75}
    won, spent = 0, 0
    for seed in range(40):
        left, cost = race(rates, prompts=128, first=16, keep=1, seed=seed)
        won += left == ["best"]
        spent += cost
    share = spent / (40 * 128 * len(rates))
    print(f"the best won {won} of 40 races; {share:.0%} of the responses of an exhaustive search")
    assert won >= 36 and share < 0.3


def test_two_equals_are_both_good_and_the_worse_never_wins() -> None:
    rates = {"a": 0.8, "b": 0.8, "c": 0.4, "d": 0.3, "e": 0.2}
    winners = [race(rates, prompts=64, first=16, keep=1, seed=seed)[0][0] for seed in range(30)]
    assert set(winners) == {"a", "b"}


def test_as_many_stay_as_the_largest_subspace_needs() -> None:
    rates = {f"layer{number}": number / 10 for number in range(10)}
    left, _ = race(rates, prompts=128, first=32, keep=5, seed=0)
    assert len(left) == 5 and left[0] == "layer9"


def test_a_candidate_that_is_far_behind_leaves_even_from_the_better_half() -> None:
    ones, zeros = np.ones(32), np.zeros(32)
    grades = {"a": Grades(ones, ones), "b": Grades(zeros, ones), "c": Grades(zeros, ones), "d": Grades(zeros, ones)}
    verdicts = judge_round(grades, keep=1)
    assert [verdict.kept for verdict in verdicts] == [True, False, False, False]
    assert verdicts[1].reason.startswith("behind beyond chance; behind a by 1.000 [")


ROUNDS = 20


@pytest.mark.parametrize("count", [11, 60])
def test_among_equals_hardly_one_is_called_behind_the_best_of_them(count: int) -> None:
    rng, called = np.random.default_rng(5), 0
    for _ in range(ROUNDS):
        grades = {f"c{number}": Grades((rng.random(32) < 0.5).astype(float), np.ones(32)) for number in range(count)}
        called += any(verdict.reason.startswith("behind beyond") for verdict in judge_round(grades, keep=count))
    print(f"{called} of {ROUNDS} rounds of {count} equals call one behind")
    assert called <= 5


def test_what_leaves_within_the_noise_is_said_to() -> None:
    rng = np.random.default_rng(3)
    grades = {name: Grades((rng.random(16) < 0.6).astype(float), np.ones(16)) for name in "abcd"}
    verdicts = judge_round(grades, keep=1)
    assert sum(verdict.kept for verdict in verdicts) == 2
    assert any(verdict.reason.startswith("outside the better half, within the noise") for verdict in verdicts)


def test_a_candidate_without_grades_comes_last() -> None:
    nothing, good = np.full(16, np.nan), np.ones(16)
    verdicts = judge_round({"none": Grades(nothing, nothing), "good": Grades(good, good)}, keep=1)
    assert [(verdict.name, verdict.kept) for verdict in verdicts] == [("good", True), ("none", False)]
