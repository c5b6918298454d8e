"""scores.parquet: one row per response and judge; what other judges said stays, and what fails keeps its earlier score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine.runs import parquet
from engine.runs.schemas import LIKELIHOOD_SCHEMA, ROLLOUT_SCHEMA, VIEW_SCHEMA
from engine.scoring.grader import FittedGrader, OfflineGrader
from engine.scoring.scores import count_scored, score_run
from judging.judgement import Item, Judgement

ROWS = 5


class Fixed(OfflineGrader):
    """A judge with a model, that gives every response one grade, or fails."""

    def __init__(self, name: str, grade: float | None) -> None:
        super().__init__(name=name)
        self.model, self.grade_given = "m", grade

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        error = "refused" if self.grade_given is None else None
        return [Judgement(self.grade_given, self.grade_given, False, "", error=error) for _ in items]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for form in ("base", "in_place"):
        for number in range(ROWS):
            row: dict[str, Any] = dict.fromkeys(ROLLOUT_SCHEMA.names)
            row |= {"variant_hash": form, "form": form, "prompt_id": f"declined/{number:05d}", "prompt": "Where is my key?"}
            rows.append(row | {"response": "On the table by the door.", "finish_reason": "stop", "response_token_ids": [1]})
    parquet.write_table(tmp_path / "rollouts.parquet", rows, ROLLOUT_SCHEMA)
    return tmp_path


def scores(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "scores.parquet")


def test_every_response_has_a_row(folder: Path) -> None:
    score_run(folder, Fixed("mine", 0.5))
    assert len(scores(folder)) == 2 * ROWS


def test_repeats_are_rows_of_their_own(folder: Path) -> None:
    score_run(folder, Fixed("mine", 0.5), repeats=3)
    assert scores(folder).repeat.value_counts().to_dict() == {0: 2 * ROWS, 1: 2 * ROWS, 2: 2 * ROWS}


def test_another_judges_rows_stay(folder: Path) -> None:
    for name in ("mine", "theirs"):
        score_run(folder, Fixed(name, 0.5))
    assert scores(folder).judge.value_counts().to_dict() == {"mine": 2 * ROWS, "theirs": 2 * ROWS}


def test_the_same_judges_rows_are_replaced(folder: Path) -> None:
    for grade in (0.5, 1.0):
        score_run(folder, Fixed("mine", grade))
    assert set(scores(folder).compliance) == {1.0}


def test_a_failure_keeps_the_score_of_before(folder: Path) -> None:
    for grade in (0.5, None):
        score_run(folder, Fixed("mine", grade))
    assert set(scores(folder).compliance) == {0.5}


def test_what_failed_is_not_counted(folder: Path) -> None:
    score_run(folder, Fixed("mine", None))
    assert count_scored(folder / "scores.parquet", "mine") == 0


def test_without_likelihoods_the_rules_say_that_they_read_the_text_alone(folder: Path) -> None:
    score_run(folder, OfflineGrader())
    assert set(scores(folder).judge) == {"offline-text"}


def test_with_likelihoods_they_read_both(folder: Path) -> None:
    keys = [(form, f"declined/{number:05d}") for form in ("base", "in_place") for number in range(ROWS)]
    rows = [{"variant_hash": form, "prompt_id": prompt_id, "mean_logprob": -1.0} for form, prompt_id in keys]
    parquet.write_table(folder / "likelihoods.parquet", rows, LIKELIHOOD_SCHEMA)
    score_run(folder, OfflineGrader())
    assert set(scores(folder).judge) == {"offline"}


def with_views(folder: Path, forms: Sequence[str]) -> None:
    keys = [{"variant_hash": form, "prompt_id": f"declined/{number:05d}"} for form in forms for number in range(ROWS)]
    rows = [key | {"given": -0.5, "otherwise": -2.0, "refusing": 0.01} for key in keys]
    parquet.write_table(folder / "views.parquet", rows, VIEW_SCHEMA)


def test_without_views_the_fitted_judge_says_that_it_reads_the_text_alone(folder: Path) -> None:
    score_run(folder, FittedGrader("fitted"))
    assert set(scores(folder).judge) == {"fitted-text"}


def test_with_views_it_reads_both(folder: Path) -> None:
    with_views(folder, ["base", "in_place"])
    score_run(folder, FittedGrader("fitted"))
    assert set(scores(folder).judge) == {"fitted"}


def test_a_view_is_in_its_probabilities(folder: Path) -> None:
    with_views(folder, ["base"])
    score_run(folder, FittedGrader("fitted"))
    kept = {judge: set(rows.raw_reply) for judge, rows in scores(folder).groupby("judge")}
    assert not kept["fitted"] & kept["fitted-text"]


def test_views_that_come_later_replace_what_the_text_alone_gave(folder: Path) -> None:
    score_run(folder, FittedGrader("fitted"))
    with_views(folder, ["base", "in_place"])
    score_run(folder, FittedGrader("fitted"))
    assert scores(folder).judge.value_counts().to_dict() == {"fitted": 2 * ROWS}


def test_a_judge_that_breaks_off_leaves_the_file_as_it_was(folder: Path) -> None:
    score_run(folder, Fixed("mine", 0.5))
    before = (folder / "scores.parquet").read_bytes()

    class Broken(Fixed):
        def grade(self, items: Sequence[Item]) -> list[Judgement]:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        score_run(folder, Broken("mine", 1.0))
    assert (folder / "scores.parquet").read_bytes() == before


def test_and_nothing_half_written_beside_it(folder: Path) -> None:
    score_run(folder, Fixed("mine", 0.5))
    assert sorted(file.name for file in folder.iterdir()) == ["rollouts.parquet", "scores.parquet"]
