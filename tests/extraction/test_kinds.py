"""Kinds as the unit: weights, coverage of intervals against resampling rows, and what few kinds are told."""

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from extraction.errors import ExtractionError
from extraction.kinds import Kinds
from extraction.separability import auroc, cohens_d, separability

RNG = np.random.default_rng(0)


def names_of(kinds: int, count: int) -> list[str]:
    return [f"kind {place % kinds}" for place in range(count)]


def side(mean: float, kinds: list[str], icc: float, rng: np.random.Generator) -> np.ndarray:
    """Projections of unit variance, of which `icc` is shared by the prompts of a kind."""
    shared = dict(zip(sorted(set(kinds)), rng.standard_normal(len(set(kinds))), strict=True))
    return mean + np.sqrt(1 - icc) * rng.standard_normal(len(kinds)) + np.sqrt(icc) * np.array([shared[kind] for kind in kinds])


def test_kinds_are_drawn_whole_and_as_many_as_there_are() -> None:
    kinds = Kinds.of(["a", "b", "a", "c", "b", "a"], 6)
    weights = kinds.weights(50, RNG)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert kinds.sizes_G.tolist() == [3, 2, 1]
    assert kinds.sums(np.arange(6.0)).tolist() == [7, 5, 3]


def test_a_prompt_without_a_kind_is_a_kind_of_its_own() -> None:
    assert Kinds.of(["", "a", "", "a"], 4).codes_N.tolist() == [0, 1, 2, 1]
    assert Kinds.of(None, 3).alone
    assert Kinds.of(["", "", ""], 3).alone


def test_one_kind_alone_says_that_intervals_hold_for_it_alone() -> None:
    only = Kinds.of(["harm"] * 20, 20)
    assert only.alone and only.note is not None and "that kind alone" in only.note


def test_fewer_than_eight_kinds_have_a_warning() -> None:
    few, enough = Kinds.of(names_of(7, 40), 40), Kinds.of(names_of(8, 40), 40)
    assert few.note is not None and "Only 7 kinds" in few.note
    assert enough.note is None


def test_another_number_of_kinds_than_prompts_is_refused() -> None:
    with pytest.raises(ExtractionError, match="Found 2 kinds for 3 prompts"):
        Kinds.of(["a", "b"], 3)


def test_different_kinds_give_what_no_kinds_give() -> None:
    declined, answered = RNG.normal(1, 1, 40), RNG.normal(0, 1, 40)
    plain, named = separability(declined, answered), separability(declined, answered, names_of(40, 40))
    assert plain.cohens_d == named.cohens_d
    assert plain.auroc == named.auroc


def test_a_resample_is_what_repeated_prompts_give() -> None:
    """The bounds against statistics of explicitly repeated prompts, kind by kind."""
    kinds = names_of(9, 30)
    declined, answered = side(1.0, kinds, 0.3, RNG), side(0.0, kinds, 0.3, RNG)
    found, weights = (
        separability(declined, answered, kinds),
        Kinds.of(kinds, 30).weights(1000, np.random.default_rng(0)).astype(int),
    )
    tail = norm.cdf(np.sqrt(9 / 8) * student.ppf(0.025, 8))
    repeated = [(np.repeat(declined, row), np.repeat(answered, row)) for row in weights]
    for triple, statistic in ((found.cohens_d, cohens_d), (found.auroc, auroc)):
        expected = np.quantile([statistic(*sides) for sides in repeated], [tail, 1 - tail])
        print(f"{statistic.__name__}: {triple}, by repetition {expected}")
        assert np.allclose(triple[1:], expected)


@pytest.mark.parametrize("icc", [pytest.param(0.0, marks=pytest.mark.slow), 0.08, pytest.param(0.2, marks=pytest.mark.slow), 0.5])
def test_intervals_over_kinds_cover_where_those_over_rows_do_not(icc: float) -> None:
    kinds, truth, draws = names_of(55, 256), (1.0, norm.cdf(1 / np.sqrt(2))), 80
    hits = {"kinds": np.zeros(2), "rows": np.zeros(2)}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        sides = side(1.0, kinds, icc, rng), side(0.0, kinds, icc, rng)
        for name, given in (("kinds", kinds), ("rows", None)):
            found = separability(*sides, given)
            hits[name] += [low <= true <= high for true, (_, low, high) in zip(truth, (found.cohens_d, found.auroc), strict=True)]
    print(f"ICC {icc}, 55 kinds, 256 pairs: " + "; ".join(f"{name} cover {found / draws}" for name, found in hits.items()))
    assert (hits["kinds"] >= 0.87 * draws).all()
    if icc >= 0.5:
        assert (hits["rows"] <= 0.85 * draws).all()


def test_auroc_within_kinds_compares_prompts_of_one_kind_alone() -> None:
    kinds, other = names_of(6, 30), names_of(5, 23)
    declined, answered = RNG.normal(1, 1, 30), RNG.normal(0, 1, 23)
    found = separability(declined, answered, kinds, other)
    wins = pairs = 0.0
    for kind in set(kinds) & set(other):
        own = [value for value, name in zip(declined, kinds, strict=True) if name == kind]
        others = [value for value, name in zip(answered, other, strict=True) if name == kind]
        wins += roc_auc_score([1] * len(own) + [0] * len(others), own + others) * len(own) * len(others)
        pairs += len(own) * len(others)
    assert found.within_auroc[0] == pytest.approx(wins / pairs)
    assert found.within_kinds == 5


def test_pooled_auroc_can_come_from_kinds_that_are_declined_more_often() -> None:
    """Every kind has its own level and its own declined share; within a kind the projection says nothing."""
    rng = np.random.default_rng(5)
    level = np.linspace(-1, 1, 40)
    kinds = np.repeat(np.arange(40), 9)
    did = rng.random(360) < np.repeat((level + 1.2) / 2.4, 9)
    projected = np.repeat(level, 9) + 0.3 * rng.standard_normal(360)
    names = np.array([f"kind {kind}" for kind in kinds])
    found = separability(projected[did], projected[~did], names[did].tolist(), names[~did].tolist())
    print(f"pooled {found.auroc}, within kinds {found.within_auroc} ({found.within_kinds} kinds)")
    assert found.auroc[1] > 0.65
    assert found.within_auroc[1] < 0.5 < found.within_auroc[2]


def test_sides_without_a_kind_in_common_are_drawn_each_by_itself() -> None:
    declined, answered = RNG.normal(1, 1, 30), RNG.normal(0, 1, 24)
    found = separability(declined, answered, names_of(10, 30), [f"other {place % 8}" for place in range(24)])
    assert found.within_kinds == 0 and np.isnan(found.within_auroc[0])
    assert found.auroc[1] < found.auroc[0] < found.auroc[2]


def kinds_then_rows(kinds: Kinds, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Weights of a bootstrap in two stages: kinds with replacement, then prompts with replacement within each."""
    places = [np.flatnonzero(kinds.codes_N == code) for code in range(kinds.count)]
    weights = np.zeros((resamples, len(kinds.codes_N)))
    drawn_RG = rng.integers(0, kinds.count, (resamples, kinds.count))
    for code, own in enumerate(places):
        rows, times = np.nonzero(drawn_RG == code)[0], len(own)
        chosen = own[rng.integers(0, times, (len(rows), times))]
        np.add.at(weights, (np.repeat(rows, times), chosen.ravel()), 1)
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("count", [55, 8])
@pytest.mark.parametrize("icc", [0.0, 0.08, 0.2, 0.5])
def test_kinds_drawn_whole_cover_best(count: int, icc: float) -> None:
    names, draws, ways = names_of(count, 128), 200, ("rows", "kinds whole", "kinds, then rows")
    kinds = Kinds.of(names, 128)
    hits, widths = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        sides = side(1.0, names, icc, rng), side(0.0, names, icc, rng)
        drawn = Kinds.of(None, 128).weights(400, rng), kinds.weights(400, rng), kinds_then_rows(kinds, 400, rng)
        for way, weights, tail in zip(ways, drawn, (0.025, kinds.tail, 0.025), strict=True):
            low, high = np.quantile(d_of_weights(*sides, weights), [tail, 1 - tail])
            hits[way] += low <= 1.0 <= high
            widths[way] += (high - low) / draws
    print(
        f"{count} kinds, 128 pairs, ICC {icc}: " + "; ".join(f"{way} {hits[way] / draws:.2f} ({widths[way]:.2f})" for way in ways)
    )
    if count == 55:
        assert 0.9 * draws <= hits["kinds whole"] <= hits["kinds, then rows"]


def d_of_weights(declined: np.ndarray, answered: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cohen's d of each resample, from sums of squares."""
    totals = weights.sum(axis=1)
    means = [weights @ values / totals for values in (declined, answered)]
    squares = [weights @ values**2 - totals * mean**2 for values, mean in zip((declined, answered), means, strict=True)]
    return (means[0] - means[1]) / np.sqrt(sum(squares) / (2 * (totals - 1)))
