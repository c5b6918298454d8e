"""Paired comparisons against closed forms, and a row a document from lm-eval's samples."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest, multinomial, ttest_rel

from engine.display.ability import unpaired_lines
from engine.lmeval.compare import Z, over_tasks, paired
from engine.lmeval.documents import compare, document_rows

RNG = np.random.default_rng(0)


def test_the_standard_error_is_that_of_the_paired_differences() -> None:
    base, variant = RNG.random(40), RNG.random(40)
    found = paired(base.tolist(), variant.tolist())
    reference = ttest_rel(variant, base)
    ratio = found["difference"]["value"] / found["stderr"]
    print(f"difference / standard error {ratio:.6f}, scipy's paired t {reference.statistic:.6f}")
    assert ratio == pytest.approx(reference.statistic) and found["p"] is None
    assert found["difference"]["low"] < found["difference"]["value"] < found["difference"]["high"]


def test_p_is_mcnemars_exact_test_for_right_and_wrong() -> None:
    base = [1.0] * 20 + [0.0] * 12 + [1.0] * 3 + [0.0] * 15
    variant = [1.0] * 20 + [1.0] * 12 + [0.0] * 3 + [0.0] * 15
    found = paired(base, variant)
    assert found["p"] == pytest.approx(binomtest(3, 15, 0.5).pvalue) and found["difference"]["value"] == pytest.approx(9 / 50)
    assert paired([1.0], [0.0])["stderr"] is None


def test_correlated_models_differ_by_less_than_their_own_errors_say() -> None:
    base = (RNG.random(400) < 0.5).astype(float)
    variant = np.where(RNG.random(400) < 0.05, 1 - base, base)
    unpaired = np.sqrt(base.var(ddof=1) / 400 + variant.var(ddof=1) / 400)
    found = paired(base.tolist(), variant.tolist())
    print(f"paired {found['stderr']:.4f}, unpaired {unpaired:.4f}")
    assert found["stderr"] < 0.5 * unpaired


def test_tasks_count_alike_in_the_mean() -> None:
    rows = [paired([0.0, 1.0], [1.0, 1.0]), paired([1.0] * 10, [0.0] * 5 + [1.0] * 5)]
    found = over_tasks(rows)
    assert found["difference"]["value"] == pytest.approx((0.5 - 0.5) / 2) and found["n"] == 12
    assert found["stderr"] == pytest.approx(np.hypot(rows[0]["stderr"], rows[1]["stderr"]) / 2)
    same = over_tasks([paired([1.0] * 8, [1.0] * 8)] * 2)
    assert same["stderr"] == 0 and same["difference"]["low"] < -0.1 and same["difference"]["high"] == -same["difference"]["low"]


@pytest.mark.parametrize(("count", "up", "down"), [(20, 0.05, 0.02), (50, 0.05, 0.02), (100, 0.1, 0.02), (100, 0.01, 0.01)])
def test_the_interval_of_a_difference_of_shares_covers_as_it_says(count: int, up: float, down: float) -> None:
    """Over every outcome with its probability; the plain paired interval beside it."""
    covered = plain = 0.0
    for gained in range(count + 1):
        for lost in range(count + 1 - gained):
            chance = multinomial.pmf([gained, lost, count - gained - lost], count, [up, down, 1 - up - down])
            if chance < 1e-9:
                continue
            base = [0.0] * gained + [1.0] * lost + [1.0] * (count - gained - lost)
            found = paired(base, [1.0] * gained + [0.0] * lost + [1.0] * (count - gained - lost))
            covered += chance * (found["difference"]["low"] <= up - down <= found["difference"]["high"])
            plain += chance * (abs(found["difference"]["value"] - (up - down)) <= Z * found["stderr"])
    print(f"n {count}, {up} better and {down} worse: covered {covered:.3f}; difference +- 1.96 standard errors {plain:.3f}")
    assert covered >= 0.945


def sample(number: int, value: float, metric: str = "acc", way: str = "none", response: object = -1.0) -> dict[str, object]:
    shared = {"doc_id": number, "doc_hash": "h", "filtered_resps": [response], "filter": way}
    return {**shared, "metrics": [metric], metric: value}


def test_documents_are_matched_by_number_and_each_has_a_row() -> None:
    def samples(values: dict[int, float]) -> dict[str, list[dict[str, object]]]:
        return {"t": [sample(key, value) for key, value in values.items()]}

    rows = document_rows("base", "0", samples({0: 1, 1: 0, 2: 1})) + document_rows("k1", "1", samples({2: 0, 1: 1, 0: 1}))
    assert len(rows) == 6 and json.loads(rows[0]["responses"]) == [-1.0]
    (found,) = compare(rows, "base", "k1")
    assert (found["n"], found["base"], found["score"]) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_a_task_that_filters_its_answers_twice_has_one_row_a_document_and_compares_the_first_way() -> None:
    given = [sample(0, 1, "exact_match", "strict", "4"), sample(1, 0, "exact_match", "strict", "5")]
    given += [sample(0, 0, "exact_match", "last", "no"), sample(1, 1, "exact_match", "last", "no")]
    rows = document_rows("base", "0", {"t": given})
    assert [(row["doc_id"], row["metric"], row["value"], row["responses"]) for row in rows] == [
        (0, "exact_match,strict", 1.0, '["4"]'),
        (1, "exact_match,strict", 0.0, '["5"]'),
    ]
    assert json.loads(rows[1]["metrics"]) == {"exact_match,strict": 0.0, "exact_match,last": 1.0}


def test_a_task_that_scores_no_single_document_is_said_to_be_compared_by_nobody() -> None:
    given = {"t": [{**sample(0, 0.0, "word_perplexity"), "word_perplexity": (-30.0, 6)}]}
    rows = document_rows("base", "0", given) + document_rows("k1", "1", given)
    assert rows[0]["metric"] is None and compare(rows, "base", "k1") == []
    result = {"tasks": [], "aggregates": {name: {"t": {"word_perplexity,none": 20.0}} for name in ("base", "k1")}}
    (line,) = unpaired_lines(result)
    assert line == "t scores no single document, so nothing is paired: base word_perplexity 20; k1 word_perplexity 20."
