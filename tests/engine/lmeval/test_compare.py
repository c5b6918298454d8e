"""Paired comparisons against closed forms, and a row a document from lm-eval's samples."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from engine.errors import EngineError
from engine.lmeval.bench import Options, check_limit, compare, document_rows
from engine.lmeval.catalogue import OWN, load_tasks
from engine.lmeval.compare import over_tasks, paired

RNG = np.random.default_rng(0)


def test_the_standard_error_is_that_of_the_paired_differences() -> None:
    base, variant = RNG.random(40), RNG.random(40)
    found = paired(base.tolist(), variant.tolist())
    reference = ttest_rel(variant, base)
    print(f"difference / standard error {found['difference'] / found['stderr']:.6f}, scipy's paired t {reference.statistic:.6f}")
    assert found["difference"] / found["stderr"] == pytest.approx(reference.statistic) and found["p"] is None
    assert found["low"] < found["difference"] < found["high"]


def test_p_is_mcnemars_exact_test_for_right_and_wrong() -> None:
    base = [1.0] * 20 + [0.0] * 12 + [1.0] * 3 + [0.0] * 15
    variant = [1.0] * 20 + [1.0] * 12 + [0.0] * 3 + [0.0] * 15
    found = paired(base, variant)
    assert found["p"] == pytest.approx(binomtest(3, 15, 0.5).pvalue) and found["difference"] == pytest.approx(9 / 50)
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
    assert found["difference"] == pytest.approx((0.5 - 0.5) / 2) and found["n"] == 12
    assert found["stderr"] == pytest.approx(np.hypot(rows[0]["stderr"], rows[1]["stderr"]) / 2)


def test_documents_are_matched_by_number_and_each_metric_has_a_row() -> None:
    def samples(values: dict[int, float]) -> dict[str, list[dict[str, object]]]:
        return {
            "t": [
                {"doc_id": key, "doc_hash": "h", "filtered_resps": [[-1.0, True]], "metrics": ["acc"], "acc": value}
                for key, value in values.items()
            ]
        }

    rows = document_rows("base", "0", samples({0: 1, 1: 0, 2: 1})) + document_rows("k1", "1", samples({2: 0, 1: 1, 0: 1}))
    assert len(rows) == 6 and json.loads(rows[0]["responses"]) == [[-1.0, True]]
    (found,) = compare(rows, "base", "k1")
    assert (found["n"], found["base"], found["score"]) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_the_shipped_task_is_a_hundred_questions_and_needs_no_hub() -> None:
    rows = [json.loads(line) for line in (OWN / "everyday.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["question"] for row in rows}) == 100
    assert all(len(set(row["choices"])) == 4 and 0 <= row["answer"] < 4 for row in rows)
    counts = np.bincount([row["answer"] for row in rows])
    print("right answers by place:", counts)
    assert counts.max() <= 35
    tasks = load_tasks(["everyday"], None, {})
    assert len(tasks["everyday"].eval_docs) == 100
    with pytest.raises(EngineError, match=r"Task everyday has 100 documents; --limit asks for 101"):
        check_limit(tasks, 101)
    assert Options(None, None, False).limit is None


def test_an_unknown_task_names_the_nearest_and_a_data_set_that_cannot_be_had_the_file_to_give(tmp_path: object) -> None:
    with pytest.raises(EngineError, match=r"lm-eval has no task 'arc_eazy'. Nearest: arc_easy"):
        load_tasks(["arc_eazy"], None, {})
    with pytest.raises(EngineError, match=r"Task arc_easy takes .*could not be had.*--data arc_easy=FILE"):
        load_tasks(["arc_easy"], None, {})
