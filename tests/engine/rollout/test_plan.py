"""A dry run: amounts against counts made here, what is done already, and that nothing is written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.configs.load import changed
from engine.display.plan_words import plan_view
from engine.display.table import Table
from engine.errors import EngineError
from engine.rollout.plan import plan_run
from judging.errors import JudgeError
from tests import small_run

JUDGE = """
[endpoint]
base_url = "http://127.0.0.1:9/v1"
model = "judge"
currency = "USD"

[endpoint.prices.judge]
input = 1.0
output = 2.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("inputs")
    small_run.make_inputs(made)
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))


def stages(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {stage["name"]: stage for stage in plan["stages"]}


def test_the_amounts_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    found = stages(plan_run(small_run.config_of(folder, given=False), tmp_path / "run").as_dict())
    assert found["directions"]["amount"] == "8 prompts"
    assert found["rollouts"]["amount"] == f"{2 * (small_run.REQUESTS + 4)} responses"
    assert found["rollouts"]["tokens"] == 2 * (small_run.REQUESTS + 4) * 16


def test_the_tokens_of_the_pairs_are_counted_by_the_tokenizer(folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = (folder / "pairs.csv").read_text().splitlines()[1:]
    messages = [[{"role": "user", "content": side}] for row in rows for side in row.split(",")]
    rendered = [tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=True) for one in messages]
    expected = sum(len(tokenizer(text, add_special_tokens=False).input_ids) for text in rendered)
    found = stages(plan_run(small_run.config_of(folder, given=False), tmp_path / "run").as_dict())
    assert found["directions"]["tokens"] == expected


def test_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    plan_run(small_run.config_of(folder), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_done_is_said_and_takes_no_time(folder: Path, tmp_path: Path) -> None:
    small_run.rollout(folder, tmp_path / "run")
    plan = plan_run(small_run.config_of(folder), tmp_path / "run").as_dict()
    assert {stage["state"] for stage in plan["stages"]} == {"done"}
    assert plan["seconds"] == 0


def test_another_configurations_run_is_refused(folder: Path, tmp_path: Path) -> None:
    small_run.rollout(folder, tmp_path / "run")
    with pytest.raises(EngineError, match="max_tokens"):
        plan_run(small_run.config_of(folder, 8), tmp_path / "run")


def test_a_folder_that_is_no_run_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    with pytest.raises(EngineError, match="not a run directory"):
        plan_run(small_run.config_of(folder), tmp_path / "run")


def test_an_endpoints_calls_and_cost_are_told_and_none_is_sent(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "judge.toml"
    file.write_text(JUDGE)
    config = changed(small_run.config_of(folder), {"judge.name": str(file), "judge.repeat": 3}, "here")
    plan = plan_run(config, tmp_path / "run").as_dict()
    assert plan["judge"]["calls"] == 3 * 2 * (small_run.REQUESTS + 4)
    assert 0 < plan["judge"]["likely_cost"] <= plan["judge"]["most_cost"]
    assert "likelihoods" not in stages(plan)


def test_a_missing_key_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    file = tmp_path / "judge.toml"
    file.write_text('[endpoint]\nbase_url = "https://example.com/v1"\nmodel = "judge"\napi_key_env = "NO_SUCH_KEY"\n')
    with pytest.raises(JudgeError, match="NO_SUCH_KEY"):
        plan_run(changed(small_run.config_of(folder), {"judge.name": str(file)}, "here"), tmp_path / "run")


def test_the_words_name_every_stage_and_the_whole_time(folder: Path, tmp_path: Path) -> None:
    plan = json.loads(json.dumps(plan_run(small_run.config_of(folder), tmp_path / "run").as_dict()))
    table = next(block for block in plan_view(plan) if isinstance(block, Table))
    assert [row[0] for row in table.rows] == ["directions", "rollouts", "likelihoods", "scores"]
    assert any(str(block).startswith("Time: about") for block in plan_view(plan))
