"""bin/judge on a run: scores beside those of others, what is missing and no more, and one message for each mistake."""

import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from judging.judgement import Item
from judging.rubric import Rubric
from tests.engine.commands.judged import KEY_VARIABLE, command, environment, judge_file, make_run, run
from tests.judging.chaos import KEY, Chaos, verdict_on
from tests.waiting import wait_for

SCORED = ["variant_hash", "prompt_id", "judge", "judge_model", "rubric_hash", "repeat", "compliance", "coherence", "declined"]
Row = dict[str, Any]


@pytest.fixture
def chaos() -> Iterator[Chaos]:
    with Chaos() as server:
        yield server


def scores_of(path: Path) -> list[Row]:
    return pq.read_table(path / "scores.parquet").to_pylist()


def rollouts_of(path: Path) -> list[Row]:
    return pq.read_table(path / "rollouts.parquet").to_pylist()


def verdict(row: Row) -> tuple[Any, ...]:
    found = verdict_on(Rubric().question(Item(row["prompt"], row["response"], row["finish_reason"])))
    return found["compliance"], found["coherence"], found["declined"]


def test_a_run_is_judged_by_two_judges_in_the_order_of_its_rows(chaos: Chaos, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 20)
    judge = judge_file(tmp_path / "mine.toml", chaos, prices={"judge": {"input": 1, "output": 2}})
    done = run(tmp_path, "judge", path, "--judge", judge, "--judge", "offline", "--json")
    assert done.returncode == 0, done.stderr
    summary, rows = json.loads(done.stdout), scores_of(path)
    mine = [row for row in rows if row["judge"] == "mine"]
    order = [(row["variant_hash"], row["prompt_id"]) for row in rollouts_of(path)]
    assert [(row["variant_hash"], row["prompt_id"]) for row in mine] == order
    assert [(r["compliance"], r["coherence"], r["declined"]) for r in mine] == [verdict(row) for row in rollouts_of(path)]
    assert {row["judge"] for row in rows} == {"mine", "offline-text"} and len(rows) == 80
    assert all(row["attempts"] == 1 and row["prompt_tokens"] == 100 and row["latency_ms"] > 0 for row in mine)
    assert sum(row["cost"] for row in mine) == pytest.approx(40 * (100 * 1 + 10 * 2) / 1e6)
    entries = {entry["name"]: entry for entry in summary["judges"]}
    assert entries["mine"]["calibration"] is None and entries["offline-text"]["calibration"]["n"] == 100
    assert {figure["judge"] for figure in summary["figures"]} == set(entries)
    [agreement] = summary["agreement"]
    assert agreement["judges"] == ["mine", "offline-text"] and agreement["compliance"]["n"] == 40
    everything = done.stdout + done.stderr + (path / "manifest.json").read_text() + str(rows)
    kept = [file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert KEY not in everything and kept and not any(KEY.encode() in content for content in kept)


def test_what_is_judged_is_not_asked_again_and_what_failed_is(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 15)
    with Chaos(share=0.3, faults=("refusal to judge", "500")) as server:
        judge = judge_file(tmp_path / "mine.toml", server, max_attempts=1)
        seen = []
        for _ in range(8):
            done = run(tmp_path, "judge", path, "--judge", judge)
            assert done.returncode == 0, done.stderr
            missing = [row for row in scores_of(path) if row["error"] is not None]
            assert all((row["compliance"], row["coherence"], row["declined"]) == (None, None, None) for row in missing)
            said = f"{len(missing)} judgements are missing"
            assert (said in done.stdout) == bool(missing), done.stdout
            seen.append((len(missing), server.attempts.total()))
            if not missing:
                break
        print(seen)
        assert len(seen) > 1 and seen[-1][0] == 0 and max(server.delivered.values()) == 1
        for (before, asked), (_, then) in itertools.pairwise(seen):
            assert then - asked == before
        calls = server.attempts.total()
        again = run(tmp_path, "judge", path, "--judge", judge)
        assert again.returncode == 0 and server.attempts.total() == calls and "stage" not in again.stderr


def test_scores_outlive_the_cache_they_came_from(chaos: Chaos, tmp_path: Path) -> None:
    path, judge = make_run(tmp_path / "run", 8), judge_file(tmp_path / "mine.toml", chaos)
    rubric = Rubric()
    questions = [rubric.question(Item(row["prompt"], row["response"], row["finish_reason"])) for row in rollouts_of(path)]
    chaos.always = {questions[0]: "400"}
    assert run(tmp_path, "judge", path, "--judge", judge).returncode == 0
    before = scores_of(path)
    assert [row["error"] is not None for row in before] == [True] + [False] * 15
    for file in (tmp_path / "cache").glob("judgements.sqlite*"):
        file.unlink()
    chaos.always = dict.fromkeys(questions[4:9], "400")
    assert run(tmp_path, "judge", path, "--judge", judge).returncode == 0
    after = scores_of(path)
    assert all(row["error"] is None for row in after) and after[4:9] == before[4:9]


def test_repeats_show_the_judges_own_variance(chaos: Chaos, tmp_path: Path) -> None:
    path, judge = make_run(tmp_path / "run", 6), judge_file(tmp_path / "mine.toml", chaos)
    done = run(tmp_path, "judge", path, "--judge", judge, "--repeat", "3")
    assert done.returncode == 0, done.stderr
    rows = scores_of(path)
    assert [row["repeat"] for row in rows] == [0, 1, 2] * 12 and chaos.attempts.total() == 36
    assert "mine asked 3 times, compliance: the same grade every time for 1.000 of 12 responses" in done.stdout


def test_calibration_is_kept_and_stands_beside_every_rate(chaos: Chaos, tmp_path: Path) -> None:
    path, judge = make_run(tmp_path / "run", 6), judge_file(tmp_path / "mine.toml", chaos)
    before = run(tmp_path, "judge", path, "--judge", judge)
    assert "Not calibrated: its error rates are not known" in before.stdout
    labels = [["prompt", "response", "compliance", "coherence", "refused", "source"]]
    for number in range(40):
        item = Item(f"Where is key {number}?", f"On table {number}.")
        right = verdict_on(Rubric().question(item))
        wrong = number % 4 == 0
        grade, refused = 0.5 if wrong else right["compliance"], "yes" if right["declined"] else "no"
        labels.append([item.prompt, item.response, grade, "", refused, "edited"])
    (tmp_path / "labels.csv").write_text("\n".join(",".join(map(str, row)) for row in labels) + "\n")
    record = json.loads(run(tmp_path, "judge", "--calibrate", "labels.csv", "--judge", judge, "--json").stdout)
    table = record["compliance"]["table"]
    assert record["n"] == 40 and record["compliance"]["accuracy"]["value"] == sum(table[i][i] for i in range(3)) / 40
    assert record["declined"]["accuracy"]["value"] == 1 and record["coherence"]["n"] == 0
    after = run(tmp_path, "judge", path, "--judge", judge, "--correct")
    assert "by whose response it is: edited " in after.stdout
    assert "(40 labels)" in after.stdout
    assert "declined, corrected" in after.stdout
    assert "Not calibrated" not in after.stdout


def bad_labels(folder: Path) -> None:
    (folder / "columns.csv").write_text("prompt,answer\na,b\n")
    (folder / "grades.csv").write_text("prompt,response,compliance,source\n" + "a,b,0.7,base\n" * 10)
    (folder / "few.csv").write_text("prompt,response,compliance,source\na,b,1,base\n")
    (folder / "sourceless.csv").write_text("prompt,response,compliance\na,b,1\n")


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["run"], [f"set the environment variable {KEY_VARIABLE}"]),
        (["run", "--judge", "deepsek"], ["Unknown judge 'deepsek'", "deepseek"]),
        (["run", "--judge", "typo.toml"], ["typo.toml: unknown key 'endpoint.modell'", "Did you mean 'model'?"]),
        (["run", "--judge", "both.toml"], ["or the key python, and one of them alone"]),
        (["run", "--judge", "key.toml"], ["a URL with a user or a password"]),
        (["nowhere", "--judge", "offline"], ["nowhere is not a directory"]),
        (["empty", "--judge", "offline"], ["empty is not a run directory (no manifest.json)"]),
        (["half", "--judge", "offline"], ["has no rollouts.parquet", "run the command that made it again"]),
        (["--judge", "offline"], ["one of the two"]),
        (["--calibrate", "nowhere.csv"], ["nowhere.csv does not exist"]),
        (["--calibrate", "columns.csv"], ["no column response and no column compliance", "prompt, answer"]),
        (["--calibrate", "few.csv"], ["few.csv has 1 labels. Give 10 or more"]),
        (["--calibrate", "sourceless.csv"], ["no column source", "a judge errs differently on each"]),
        (["--calibrate", "grades.csv"], ["grades.csv, line 2: compliance is '0.7'; expected 0, 0.5 or 1"]),
        (["run", "--judge", "mine.toml", "--max-cost", "1"], ["needs a price for the model 'judge'", "has nothing"]),
        (
            ["run", "--judge", "mine.toml", "--set", "endpoint.base_url='http://127.0.0.1:9/v1'"],
            ["nothing answers at http://127"],
        ),
        (["run", "--judge", "mine.toml", "--set", "rubric='none.md'"], ["The rubric none.md cannot be read"]),
    ],
)
def test_bad_input_gets_one_message_and_exit_2(chaos: Chaos, tmp_path: Path, arguments: list[str], messages: list[str]) -> None:
    make_run(tmp_path / "run", 4)
    judge_file(tmp_path / "mine.toml", chaos)
    bad_labels(tmp_path)
    (tmp_path / "typo.toml").write_text('[endpoint]\nbase_url = "http://x/v1"\nmodell = "m"\n')
    (tmp_path / "both.toml").write_text('[endpoint]\nbase_url = "http://x/v1"\nmodel = "m"\n[local]\nmodel.path = "p"\n')
    (tmp_path / "key.toml").write_text('[endpoint]\nbase_url = "http://me:secret@x/v1"\nmodel = "m"\n')
    (tmp_path / "empty").mkdir()
    shards = make_run(tmp_path / "half", 4) / "rollouts.shards"
    shards.mkdir()
    (tmp_path / "half" / "rollouts.parquet").rename(shards / "1.parquet")
    missing_key = arguments == ["run"]
    if missing_key:
        arguments = ["run", "--judge", "mine.toml"]
    started = time.monotonic()
    done = run(tmp_path, "judge", *arguments, **({KEY_VARIABLE: ""} if missing_key else {}))
    print(f"{time.monotonic() - started:.1f} s: {done.stderr}")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert all(message in done.stderr for message in messages), done.stderr
    assert done.stderr.count("error: ") == 1 and "me:secret" not in done.stderr
    assert not (tmp_path / "run" / "scores.parquet").exists() and chaos.attempts.total() == 0


def test_an_endpoint_that_refuses_is_quoted_once(chaos: Chaos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiohttp import web

    async def unknown_model(*arguments: Any) -> web.Response:
        return web.json_response({"error": {"message": "The model `judge` does not exist."}}, status=404)

    monkeypatch.setattr(chaos, "reply", unknown_model)
    path, judge = make_run(tmp_path / "run", 40), judge_file(tmp_path / "mine.toml", chaos)
    done = run(tmp_path, "judge", path, "--judge", judge)
    assert done.returncode == 2 and done.stderr.count("The model `judge` does not exist.") == 1
    assert chaos.attempts.total() <= 8 and not (path / "scores.parquet").exists()


def test_a_dry_run_counts_calls_and_sends_none(chaos: Chaos, tmp_path: Path) -> None:
    path, judge = make_run(tmp_path / "run", 10), judge_file(tmp_path / "mine.toml", chaos)
    plan = json.loads(run(tmp_path, "judge", path, "--judge", judge, "--repeat", "2", "--dry-run").stdout)
    assert plan["responses"] == 20 and plan["judges"][0]["calls"] == 40 and chaos.attempts.total() == 0


@pytest.mark.slow
def test_killed_at_ten_random_moments_the_scores_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    whole, killed = make_run(tmp_path / "whole", 40), make_run(tmp_path / "killed", 40)
    with Chaos() as calm:
        judge = judge_file(tmp_path / "mine.toml", calm)
        assert run(tmp_path, "judge", whole, "--judge", judge, REFUSAL_ROLLOUT_CACHE=str(tmp_path / "other")).returncode == 0
    draw, kills = random.Random(0), 0
    with Chaos(share=0.1, latency_s=0.4, faults=("500", "garbage JSON", "disconnect in mid-body")) as server:
        judge = judge_file(tmp_path / "mine.toml", server, max_concurrency=2, max_attempts=50)
        for _ in range(10):
            asked = server.attempts.total()
            line = command("judge", killed, "--judge", judge)
            process = subprocess.Popen(line, env=environment(tmp_path), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            wait_for(lambda: server.attempts.total() != asked or process.poll() is not None)  # noqa: B023
            time.sleep(draw.uniform(0, 1.4))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
            assert not (killed / "scores.parquet").exists() or process.returncode == 0
        done = run(tmp_path, "judge", killed, "--judge", judge)
        assert done.returncode == 0, done.stderr
        twice = sum(count - 1 for count in server.delivered.values())
    found = [{**row, "judge_model": ""} for row in pq.read_table(killed / "scores.parquet", columns=SCORED).to_pylist()]
    wanted = [{**row, "judge_model": ""} for row in pq.read_table(whole / "scores.parquet", columns=SCORED).to_pylist()]
    print(f"{kills} kills; {twice} answers were on their way when a process was killed, and asked for again")
    assert kills == 10 and found == wanted
    assert twice <= 4 * kills  # two under way at most, and two that came and were not on disk yet
