"""Kappa and alpha against worked examples and closed forms."""

import numpy as np
import pytest

from judging.agreement import kappa, of_repeats, of_two, ordinal_alpha
from judging.judgement import GRADES


def ratings(compliance: list[float | None], coherence: list[float | None] | None = None) -> dict[int, dict[str, float | None]]:
    pairs = zip(compliance, coherence or compliance, strict=True)
    return {number: {"compliance": a, "coherence": b} for number, (a, b) in enumerate(pairs)}


def test_kappa_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.choice(GRADES, 200).tolist() for _ in range(2))
    table = np.array([[sum(a == x and b == y for a, b in zip(first, second, strict=True)) for y in GRADES] for x in GRADES]) / 200
    chance = table.sum(1) @ table.sum(0)
    plain = (np.trace(table) - chance) / (1 - chance)
    weights = np.array([[(i - j) ** 2 for j in range(3)] for i in range(3)])
    weighted = 1 - (weights * table).sum() / (weights * np.outer(table.sum(1), table.sum(0))).sum()
    print(plain, weighted)
    assert kappa(first, second, labels=GRADES) == pytest.approx(plain)
    assert kappa(first, second, labels=GRADES, weighted=True) == pytest.approx(weighted)


def test_kappa_and_alpha_are_not_defined_where_only_one_grade_was_used() -> None:
    assert kappa([1.0] * 5, [1.0] * 5, labels=GRADES) is None
    assert ordinal_alpha([[1.0] * 5, [1.0] * 5]) is None


def test_units_with_one_rating_do_not_count_for_alpha() -> None:
    assert ordinal_alpha([[1.0, 0.0], [1.0, None]]) is None
    assert ordinal_alpha([[1.0, 0.0, 0.0], [1.0, 0.0, None]]) == 1


def test_ordinal_alpha_is_one_for_equal_ratings_and_reads_the_order() -> None:
    grades = [0.0, 0.5, 1.0] * 10
    near = [*grades[:-1], 0.5]  # one grade apart
    far = [*grades[:-1], 0.0]  # two apart
    assert ordinal_alpha([grades, grades]) == 1
    assert 1 > ordinal_alpha([grades, near]) > ordinal_alpha([grades, far])


def test_ordinal_alpha_is_the_definition() -> None:
    rng = np.random.default_rng(1)
    data = [rng.choice(GRADES, 30).tolist() for _ in range(3)]
    counts = {grade: sum(rater.count(grade) for rater in data) for grade in GRADES}

    def distance(a: float, b: float) -> float:
        low, high = sorted((GRADES.index(a), GRADES.index(b)))
        between = sum(counts[GRADES[place]] for place in range(low, high + 1))
        return (between - (counts[a] + counts[b]) / 2) ** 2

    units = list(zip(*data, strict=True))
    observed = sum(distance(a, b) for unit in units for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j) / 2
    values = [grade for rater in data for grade in rater]
    expected = sum(distance(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j) / (len(values) - 1)
    assert ordinal_alpha(data) == pytest.approx(1 - observed / expected)


def test_missing_grades_are_left_out_of_both() -> None:
    found = of_two(ratings([1.0, 0.0, None, 0.5]), ratings([1.0, 0.5, 1.0, None]))["compliance"]
    assert found["n"] == 2
    assert found["exact"] == 0.5
    assert found["table"] == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_a_judges_own_variance_over_repeats() -> None:
    found = of_repeats([ratings([1.0, 0.0, 0.5]), ratings([1.0, 0.5, 0.5]), ratings([1.0, 0.0, None])])["compliance"]
    assert (found["n"], found["repeats"], found["unanimous"]) == (3, 3, pytest.approx(2 / 3))
    assert found["standard_deviation"] == pytest.approx(np.sqrt(np.var([0, 0.5, 0], ddof=1) / 3))
