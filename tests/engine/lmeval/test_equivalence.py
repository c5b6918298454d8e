"""Two one-sided tests and the smallest visible difference, against statsmodels and against every outcome with its probability."""

import math

import numpy as np
import pytest
from scipy.stats import multinomial
from statsmodels.stats.weightstats import DescrStatsW

from engine.display.ability import bench_table
from engine.errors import EngineError
from engine.lmeval.compare import over_tasks, paired
from engine.lmeval.equivalence import check_margin

RNG = np.random.default_rng(0)


def outcome(same: int, gained: int, lost: int) -> tuple[list[float], list[float]]:
    return [1.0] * same + [0.0] * gained + [1.0] * lost, [1.0] * same + [1.0] * gained + [0.0] * lost


def test_p_of_a_metric_that_is_not_0_or_1_is_statsmodels() -> None:
    base = RNG.random(300)
    variant = base + RNG.normal(0.002, 0.1, 300)
    reference = DescrStatsW(variant - base).ttost_mean(-0.02, 0.02)[0]
    found = paired(base.tolist(), variant.tolist())
    print(f"TOST p {found['tost_p']:.6f}, statsmodels {reference:.6f}")
    assert found["tost_p"] == pytest.approx(reference)
    assert found["verdict"] == "equivalent"


def test_a_hundred_documents_cannot_show_that_nothing_is_lost() -> None:
    found = paired(*outcome(100, 0, 0))
    assert found["verdict"] == "cannot tell"
    assert found["detectable"] > 0.03


def test_many_documents_can() -> None:
    found = paired(*outcome(1950, 25, 25))
    assert found["verdict"] == "equivalent" and found["detectable"] < 0.02


def test_a_small_loss_that_is_sure_is_both() -> None:
    assert paired(*outcome(19_800, 50, 150))["verdict"] == "equivalent, lower"
    assert paired(*outcome(80, 0, 20))["verdict"] == "lower"
    assert paired(*outcome(80, 20, 0))["verdict"] == "higher"


def test_a_wider_margin_says_equivalent_sooner() -> None:
    sides = outcome(480, 20, 20)
    assert paired(*sides, 0.02)["tost_p"] > 0.05 > paired(*sides, 0.05)["tost_p"]


@pytest.mark.parametrize(("count", "up"), [(200, 0.02), (300, 0.03)])
def test_a_loss_as_large_as_the_margin_is_called_equivalent_in_one_of_twenty(count: int, up: float) -> None:
    """Over every outcome with its probability, where the true loss is the margin itself."""
    margin, wrong = 0.02, 0.0
    down = up + margin
    for gained in range(int(count * up * 4) + 8):
        for lost in range(int(count * down * 4) + 8):
            chance = multinomial.pmf([gained, lost, count - gained - lost], count, [up, down, 1 - up - down])
            if chance > 1e-7:
                verdict = paired(*outcome(count - gained - lost, gained, lost), margin)["verdict"]
                wrong += chance * verdict.startswith("equivalent")
    print(f"n {count}: called equivalent at a loss of 2 points with probability {wrong:.3f}")
    assert wrong <= 0.06


def test_the_detectable_difference_is_seen_in_eighty_of_a_hundred_samples() -> None:
    count, up, loss = 400, 0.06, 0.0585  # what 400 documents with so many differing ones can see
    seen, asked = 0, []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        down = up + loss
        gained, lost, same = rng.multinomial(count, [up, down, 1 - up - down])
        found = paired(*outcome(same, gained, lost))
        asked.append(found["detectable"])
        seen += found["difference"]["high"] < 0
    print(f"detectable {np.mean(asked):.4f}; a loss of {loss} was seen in {seen} of 400")
    assert np.mean(asked) == pytest.approx(loss, abs=0.002)
    assert 0.74 * 400 <= seen <= 0.86 * 400


def test_the_mean_over_tasks_has_a_verdict_of_its_own() -> None:
    tasks = [paired(*outcome(280, 10, 10)) for _ in range(8)]
    found = over_tasks(tasks)
    assert tasks[0]["verdict"] == "cannot tell" and found["verdict"] == "equivalent"
    assert found["detectable"] < tasks[0]["detectable"] / math.sqrt(7)


def test_a_single_document_says_nothing() -> None:
    found = paired([1.0], [0.0])
    assert (found["tost_p"], found["detectable"], found["verdict"]) == (None, None, "cannot tell")
    assert over_tasks([found, found])["verdict"] == "cannot tell"


@pytest.mark.parametrize("margin", [0.0, -0.02, 1.0, 2.0, float("nan")])
def test_a_margin_out_of_range_is_refused(margin: float) -> None:
    with pytest.raises(EngineError, match="--margin takes a share between 0 and 1"):
        check_margin(margin)


def test_the_table_says_what_could_have_been_seen() -> None:
    row = {"variant": "k1", "task": "t", "metric": "acc", **paired(*outcome(100, 0, 0))}
    result = {"variants": ["base", "k1"], "tasks": [row], "mean": []}
    table = bench_table(result | {"options": {"limit": None, "num_fewshot": None, "margin": 0.02}})
    assert table.columns[-2:] == ["could see", "verdict"] and table.rows[0][-1] == "cannot tell"
    assert any("within 2 points (--margin)" in note for note in table.notes)
