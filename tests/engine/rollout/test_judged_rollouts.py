"""Real rollouts of SmolLM2 judged through endpoints: by a chaos server along the way, by a real `vllm serve` with a key."""

import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.engine.commands.judged import KEY_VARIABLE, ROOT, command, environment, judge_file, process, run
from tests.judging.chaos import KEY, Chaos
from tests.served import serve

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("smollm2_dir")]
VARIANT = ["--variant", "smollm2_135m_k1", "--set", "data.num_pairs=24", "--set", "sampling.max_tokens=24"]
SIZE = ["--num-requests", "80", "--num-answerable", "16"]


@pytest.mark.slow
def test_a_rollout_is_judged_while_it_generates_and_what_failed_is_asked_for_again(tmp_path: Path, smollm2_dir: Path) -> None:
    out = tmp_path / "run"
    with Chaos(share=0.2, latency_s=0.02, faults=("500", "refusal to judge", "disconnect in mid-body")) as server:
        judge = judge_file(tmp_path / "mine.toml", server, timeout_s=30.0, deadline_s=120.0)
        line = command("rollout", *VARIANT, *SIZE, "--model", smollm2_dir, "--judge", judge, "--out", out)
        process = subprocess.Popen(line, env=environment(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stderr is not None
        lines = []
        along_the_way = 0
        for text in process.stderr:
            lines.append(text)
            if text.startswith("stage: scores"):
                along_the_way = server.delivered.total()
        assert process.wait() == 0, "".join(lines)
        scores = pq.read_table(out / "scores.parquet").to_pylist()
        print(f"{along_the_way} of {len(scores)} judgements were there when generation ended; {sum(server.hit.values())} faults")
        assert along_the_way >= 64 and len(scores) == 192 and {row["judge"] for row in scores} == {"mine"}
        assert not (out / "likelihoods.parquet").exists(), "a language model reads fluency for itself"
        assert max(server.delivered.values()) == 1
        missing = [row for row in scores if row["error"] is not None]
        assert all(row["compliance"] is None for row in missing)
        again = process(tmp_path, "rollout", *VARIANT, *SIZE, "--model", smollm2_dir, "--judge", judge, "--out", out)
        assert again.returncode == 0 and "engine: starting" not in again.stderr
        left = sum(row["error"] is not None for row in pq.read_table(out / "scores.parquet").to_pylist())
        print(f"missing {len(missing)}, after a second run {left}")
        assert left < max(len(missing), 1)


def test_a_judge_that_refuses_shows_before_a_model_is_loaded(tmp_path: Path, smollm2_dir: Path) -> None:
    with Chaos() as server:
        judge = judge_file(tmp_path / "mine.toml", server, base_url=server.url.replace("/v1", "/v2"))
        arguments = [*VARIANT, *SIZE, "--model", smollm2_dir, "--judge", judge, "--out", tmp_path / "run"]
        done = run(tmp_path, "rollout", *arguments)
        assert done.returncode == 2 and "no such model or address" in done.stderr
        keyless = run(tmp_path, "rollout", *arguments, **{KEY_VARIABLE: ""})
        assert keyless.returncode == 2 and KEY_VARIABLE in keyless.stderr
        there = {"REFUSAL_ROLLOUT_CACHE": str(ROOT / ".cache")}  # with the local judge's model in it
        local = run(tmp_path, "sweep", *VARIANT, "--model", smollm2_dir, "--judge", "local", **there)
        assert local.returncode == 2 and "A sweep needs its judge while its engine runs" in local.stderr
    assert not (tmp_path / "run").exists() and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_smollm2_rollouts_are_judged_through_a_real_vllm_server(tmp_path: Path, smollm2_dir: Path) -> None:
    out = tmp_path / "run"
    size = ["--num-requests", "16", "--num-answerable", "8"]
    done = process(tmp_path, "rollout", *VARIANT, *size, "--model", smollm2_dir, "--out", out)
    assert done.returncode == 0, done.stderr
    with serve(smollm2_dir, "judge", KEY, tmp_path / "log") as url:
        options = "json_schema", "choice"
        for structured in options:
            (tmp_path / f"{structured}.toml").write_text(
                f'[endpoint]\nbase_url = "{url}"\nmodel = "judge"\napi_key_env = "{KEY_VARIABLE}"\n'
                f'structured = "{structured}"\nmax_tokens = 200\nmax_concurrency = 16\n'
            )
        judges = [argument for structured in options for argument in ("--judge", f"{structured}.toml")]
        judged = process(tmp_path, "judge", out, *judges, "--json")
        assert judged.returncode == 0, judged.stderr
        wrong = process(tmp_path, "judge", out, "--judge", "choice.toml", "--set", "endpoint.model=other")
        keyless = run(
            tmp_path, "judge", out, "--judge", "choice.toml", "--set", "endpoint.model=other", **{KEY_VARIABLE: "another-key"}
        )
    summary = json.loads(judged.stdout)
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    for name in options:
        mine = [row for row in rows if row["judge"] == name]
        scored = [row for row in mine if row["error"] is None]
        print(name, f"{len(scored)} of {len(mine)} scored", {row["error"] for row in mine}, scored[0]["raw_reply"])
        assert len(mine) == 48 and len(scored) >= 30
        assert all(row["compliance"] in (0, 0.5, 1) and row["prompt_tokens"] > 500 and row["latency_ms"] > 0 for row in scored)
    assert {entry["name"] for entry in summary["judges"]} == {"offline", *options} and len(summary["agreement"]) == 3
    assert wrong.returncode == 2 and wrong.stderr.count("The model `other` does not exist") == 1, wrong.stderr
    assert keyless.returncode == 2 and "the key was not accepted" in keyless.stderr and KEY not in keyless.stderr
