"""A run that the fitted judge grades: the base's views are read, kept and weighed; no engine behind them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.configs.load import changed
from engine.display.group_tables import judges_table
from engine.display.numbers import estimate
from engine.inference.arguments import SMALL_BLOCK, engine_arguments
from engine.rollout.judge_again import JudgingOptions, judge
from engine.rollout.run import run
from engine.runs import parquet
from engine.runs.session import Session
from judging.fitted import FittedJudge
from judging.view import CONTROLS, VIEWED_TOKENS, BaseView
from tests.small_run import SmallReplica, config_of, make_inputs

Rows = dict[str, list[dict[str, Any]]]


class Reading(SmallReplica):
    """Keeps what it was asked to read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[list[int], list[int]]] = []

    def mean_logprobs(self, prompts: Sequence[Any], responses: Sequence[Any], *options: Any, **named: Any) -> list[float | None]:
        self.read += [(list(prompt), list(response)) for prompt, response in zip(prompts, responses, strict=True)]
        return super().mean_logprobs(prompts, responses, *options, **named)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reading, Session]:
    out = tmp_path_factory.mktemp("run") / "run"
    config = changed(config_of(folder, max_tokens=24), {"judge.name": "fitted"}, "the test")
    session, replica = Session(config), Reading()
    session.use(replica)  # type: ignore[arg-type]
    run(config, out, session=session)
    return out, replica, session


@pytest.fixture(scope="module")
def rows(finished: tuple[Path, Reading, Session]) -> Rows:
    return {name: parquet.read_rows(finished[0] / f"{name}.parquet") for name in ("rollouts", "views", "scores")}


def test_every_response_has_a_view(rows: Rows) -> None:
    assert {parquet.key_of(row) for row in rows["views"]} == {parquet.key_of(row) for row in rows["rollouts"]}


def test_every_score_is_by_the_judge_that_reads_them(rows: Rows) -> None:
    assert {row["judge"] for row in rows["scores"]} == {"fitted"}


def test_a_grade_is_the_judges_own_of_text_and_view(rows: Rows) -> None:
    views = {parquet.key_of(row): BaseView(row["given"], row["otherwise"], row["refusing"]) for row in rows["views"]}
    scores = {parquet.key_of(row): row for row in rows["scores"]}
    for row in rows["rollouts"]:
        key = parquet.key_of(row)
        expected = FittedJudge().score(row["prompt"], row["response"], finish_reason=row["finish_reason"], view=views[key])
        assert scores[key]["raw_reply"] == expected.raw_reply


def test_only_beginnings_are_read(finished: tuple[Path, Reading, Session]) -> None:
    assert {len(response) for _, response in finished[1].read} == {VIEWED_TOKENS}


def test_each_is_read_behind_its_own_request_and_behind_the_others(finished: tuple[Path, Reading, Session], rows: Rows) -> None:
    behind = [finished[2].renderer.render(text) for text in CONTROLS]
    assert sum(prompt in behind for prompt, _ in finished[1].read) == len(CONTROLS) * len(rows["rollouts"])


def test_likelihoods_of_whole_responses_are_not_read(finished: tuple[Path, Reading, Session]) -> None:
    assert not (finished[0] / "likelihoods.parquet").exists()


def test_a_finished_run_reads_nothing_again(finished: tuple[Path, Reading, Session]) -> None:
    before = json.loads((finished[0] / "manifest.json").read_text())["stages"]["views"]
    run(finished[2].config, finished[0])
    assert json.loads((finished[0] / "manifest.json").read_text())["stages"]["views"] == before


@pytest.fixture(scope="module")
def judged_twice(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the rules, judged again by the fitted judge."""
    out, config = tmp_path_factory.mktemp("twice") / "run", config_of(folder, max_tokens=24)
    session = Session(config)
    session.use(SmallReplica())  # type: ignore[arg-type]
    run(config, out, session=session)
    judge(out, ["fitted"], JudgingOptions())
    return out


def test_a_run_judged_again_without_views_says_that_the_text_alone_was_read(judged_twice: Path) -> None:
    assert {row["judge"] for row in parquet.read_rows(judged_twice / "scores.parquet")} == {"offline", "fitted-text"}


def test_its_judges_stand_beside_each_other(judged_twice: Path) -> None:
    table = judges_table(json.loads((judged_twice / "summary.json").read_text()))
    assert table is not None
    assert [row[2] for row in table.rows] == 4 * ["offline", "fitted-text"]


def test_each_with_its_own_figure(judged_twice: Path) -> None:
    summary = json.loads((judged_twice / "summary.json").read_text())
    table = judges_table(summary)
    figure = next(one for one in summary["figures"] if one["judge"] == "fitted-text" and one["kind"] == "declined")
    assert table is not None and table.rows[1][-1] == estimate(figure["product"])


def test_the_page_shows_them(judged_twice: Path) -> None:
    assert "Judges beside each other" in (judged_twice / "report.html").read_text()


def test_one_judge_has_no_such_table(finished: tuple[Path, Reading, Session]) -> None:
    assert judges_table(json.loads((finished[0] / "summary.json").read_text())) is None


@pytest.mark.parametrize(("judge_name", "block"), [("fitted", SMALL_BLOCK), ("offline", None)])
def test_on_a_cpu_its_engine_keeps_prompts_in_small_blocks(judge_name: str, block: int | None, folder: Path) -> None:
    config = changed(config_of(folder), {"judge.name": judge_name}, "the test")
    assert engine_arguments(config, folder / "model", has_gpu=False).get("block_size") == block
