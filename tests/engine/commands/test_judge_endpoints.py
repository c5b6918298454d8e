"""bin/judge at endpoints as they are: what it says beforehand, how it exits, and run files that somebody altered."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import EngineError
from engine.rollout import judge_again
from engine.rollout.judge_again import JudgingOptions
from engine.runs.manifest import read_manifest
from engine.runs.run_dir import RunDir
from tests.engine.commands.judged import KEY_VARIABLE, judge_file, make_run, run
from tests.judging.chaos import KEY, Chaos
from tests.judging.imitation import Imitation, error, openai_error, plain, refuses, verdict_in
from tests.judging.quirks import TEMPERATURE

PRICES = {"judge": {"input": 1, "output": 2}}
OFFLINE = ["offline"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(KEY_VARIABLE, KEY)


def scores(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path / "scores.parquet").to_pylist()


def test_nothing_scored_is_exit_status_1_with_the_first_error(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 4)
    with Imitation(lambda request, body: plain(body, "It answers.")) as server:
        done = run(tmp_path, "judge", path, "--judge", judge_file(tmp_path / "mine.toml", server))
    assert done.returncode == 1, done.stderr
    assert "mine scored none of the responses; the first error: unusable: not one JSON object" in done.stderr
    assert "Traceback" not in done.stderr
    assert {row["compliance"] for row in scores(path)} == {None}


def test_without_a_judge_and_without_its_key_it_is_refused_and_not_judged_by_rules(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 2)
    done = run(tmp_path, "judge", path, DEEPSEEK_API_KEY="")
    assert done.returncode == 2
    assert "DEEPSEEK_API_KEY" in done.stderr
    assert "--judge offline" in done.stderr
    assert not (path / "scores.parquet").exists()


def test_check_prints_what_an_endpoint_can_do_and_what_a_run_takes(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 5)
    with Imitation(refuses("temperature", 400, TEMPERATURE)) as server:
        judge = judge_file(tmp_path / "mine.toml", server, prices=PRICES, currency="EUR")
        done = run(tmp_path, "judge", path, "--check", judge)
        assert len(server.bodies) == 2, "the item, and again without the field"
    assert done.returncode == 0, done.stderr
    assert "verdict: read" in done.stdout
    assert "note: temperature is left out from now on" in done.stdout
    assert "run, what is not judged: 10 calls" in done.stdout
    assert "EUR" in done.stdout
    assert not (path / "scores.parquet").exists()


def test_check_needs_no_run(tmp_path: Path) -> None:
    with Imitation(lambda request, body: plain(body, usage=None, model="other")) as server:
        found, run_name, wanted = judge_again.check(str(judge_file(tmp_path / "mine.toml", server)), JudgingOptions())
    assert (found["verdict"], found["reply_model"], found["prompt_tokens"]) == (True, "other", None)
    assert run_name == "1000 short responses"
    assert (wanted.calls, wanted.likely_cost) == (1000, None)


def test_check_of_the_rules_is_refused() -> None:
    with pytest.raises(EngineError, match="--check asks an endpoint, and the judge 'offline' is none"):
        judge_again.check("offline", JudgingOptions())


@pytest.mark.parametrize(
    ("limits", "seconds", "named"),
    [
        ({"max_concurrency": 4}, 10.0, "max_concurrency = 4"),
        ({"requests_per_minute": 30}, 40.0, "requests_per_minute = 30"),
        ({"tokens_per_minute": 600, "max_tokens": 100}, None, "tokens_per_minute = 600"),
    ],
)
def test_a_plan_says_calls_tokens_cost_and_duration(
    limits: dict[str, Any], seconds: float | None, named: str, tmp_path: Path
) -> None:
    path = make_run(tmp_path / "run", 10)
    with Chaos() as server:
        judge = judge_file(tmp_path / "mine.toml", server, prices=PRICES, **limits)
        [plan] = judge_again.plan(path, [str(judge)], JudgingOptions())["judges"]
        assert server.attempts.total() == 0
    assert plan["calls"] == 20
    assert plan["currency"] == "USD"
    assert 0 < plan["likely_cost"] < plan["most_cost"]
    assert plan["completion_tokens"] == 20 * limits.get("max_tokens", 256)
    assert named in plan["limited_by"]
    assert seconds is None or plan["seconds"] == seconds


def test_rows_hold_the_model_that_answered_and_null_for_what_was_not_counted(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 2)
    with Imitation(lambda request, body: plain(body, usage=None, model="other-7b")) as server:
        summary = judge_again.judge(path, [str(judge_file(tmp_path / "mine.toml", server, prices=PRICES))], JudgingOptions())
    rows = scores(path)
    assert {row["reply_model"] for row in rows} == {"other-7b"}
    assert {(row["prompt_tokens"], row["completion_tokens"], row["cost"]) for row in rows} == {(None, None, None)}
    assert [judge["cost"] for judge in summary["judges"]] == [None]


def test_a_cost_of_which_a_part_is_unknown_is_told_as_a_lower_bound(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 4)

    def half(request: Any, body: Any) -> Any:
        return plain(body, usage=None) if '"declined": true' in verdict_in(body) else None

    with Imitation(half) as server:
        summary = judge_again.judge(path, [str(judge_file(tmp_path / "mine.toml", server, prices=PRICES))], JudgingOptions())
    [judge] = summary["judges"]
    assert judge["cost_unknown"] == sum(row["cost"] is None for row in scores(path)) > 0
    assert judge["cost"] > 0


def test_a_refusal_names_the_setting(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 2)
    with Imitation(lambda request, body: error(400, openai_error("System role not supported"))) as server:
        done = run(tmp_path, "judge", path, "--judge", judge_file(tmp_path / "mine.toml", server))
    assert done.returncode == 2
    assert "merge_system = true" in done.stderr


def test_temperature_is_unset_from_the_command_line(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 2)
    with Chaos() as server:
        judge = str(judge_file(tmp_path / "mine.toml", server))
        found = judge_again.plan(path, [judge], JudgingOptions(overrides={"endpoint.temperature": "unset"}))
    assert found["judges"][0]["identity"]["judge"]["temperature"] is None


def test_a_ca_file_stands_beside_the_judges_file(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 2)
    with Chaos() as server:
        judge = str(judge_file(tmp_path / "mine.toml", server, ca_file="ca.pem"))
        with pytest.raises(Exception, match=f"ca_file {tmp_path}/ca.pem cannot be read"):
            judge_again.judge(path, [judge], JudgingOptions())


def altered(path: Path, name: str, change: Any) -> Path:
    """The run as an earlier version, or somebody who knows what he does, would have left it: the manifest knows the file."""
    run_dir = RunDir(path, read_manifest(path))
    with run_dir.writing(name, by="another version"):
        pq.write_table(change(pq.read_table(path / name)), path / name)
    return path


def emptied(table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def with_null(table: pa.Table) -> pa.Table:
    texts = table["response"].to_pylist()
    return table.set_column(table.column_names.index("response"), "response", pa.array([*texts[:-1], None], pa.string()))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("rollouts.parquet", emptied, "has no rows, so there is nothing to judge"),
        ("rollouts.parquet", with_null, r"has a row without a response \(variant_hash hash-in_place, prompt_id"),
        ("rollouts.parquet", lambda table: table.drop_columns(["finish_reason"]), "has no column 'finish_reason'"),
        ("scores.parquet", lambda table: table.drop_columns(["cost"]), "has no column 'cost'"),
        ("scores.parquet", lambda table: table.drop_columns(["judge"]), "has no column 'judge'"),
    ],
)
def test_altered_run_files_are_one_message(name: str, change: Any, said: str, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 4)
    judge_again.judge(path, OFFLINE, JudgingOptions())
    altered(path, name, change)
    with Chaos() as server, pytest.raises(EngineError, match=said):
        judge_again.judge(path, [str(judge_file(tmp_path / "mine.toml", server))], JudgingOptions())


def test_an_empty_scores_file_is_one_message_and_exit_2(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 2)
    (path / "scores.parquet").write_bytes(b"")
    done = run(tmp_path, "judge", path, "--judge", "offline")
    assert done.returncode == 2
    assert "scores.parquet cannot be read as Parquet" in done.stderr
    assert "Traceback" not in done.stderr


def test_scores_of_an_earlier_version_stay_beside_new_ones(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 2)
    judge_again.judge(path, OFFLINE, JudgingOptions())
    altered(path, "scores.parquet", lambda table: table.drop_columns(["reply_model"]))
    with Chaos() as server:
        judge_again.judge(path, [str(judge_file(tmp_path / "mine.toml", server))], JudgingOptions())
    assert {row["judge"] for row in scores(path)} == {"offline-text", "mine"}


def test_the_plan_on_stdout_is_json_and_the_sentence_is_beside_it(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 2)
    with Chaos() as server:
        done = run(tmp_path, "judge", path, "--judge", judge_file(tmp_path / "mine.toml", server, prices=PRICES), "--dry-run")
    assert json.loads(done.stdout)["judges"][0]["calls"] == 4
    assert "judge mine: 4 calls; about" in done.stderr
    assert "USD, at most" in done.stderr
