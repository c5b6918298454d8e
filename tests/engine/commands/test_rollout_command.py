"""bin/rollout and bin/edit as a user runs them, on real input: the run, the second run, SIGKILL, and other tools."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.commands import ran
from tests.served import serve
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]
SMALL = ["--num-requests", "24", "--num-answerable", "6", "--set", "data.num_pairs=16", "--set", "sampling.max_tokens=24"]
pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("smollm2_dir")]


def rollout(out: Path, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "engine.commands.rollout",
        "--variant",
        "smollm2_135m_k1",
        *SMALL,
        "--out",
        str(out),
        *arguments,
    ]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = ran("rollout", *rollout(out, "--json")[3:])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figures"][0]["n"] == 24
    return out


def test_a_run_has_its_files_and_every_prompt_once_per_variant(finished: Path) -> None:
    files = {
        "manifest.json",
        "directions.safetensors",
        "rollouts.parquet",
        "likelihoods.parquet",
        "scores.parquet",
        "summary.json",
        "report.html",
        "report.tex",
        "plots",
    }
    assert {file.name for file in finished.iterdir() if file.name != ".lock"} == files
    rollouts, scores = pd.read_parquet(finished / "rollouts.parquet"), pd.read_parquet(finished / "scores.parquet")
    assert len(rollouts) == 2 * 30 and not rollouts.duplicated(["variant_hash", "prompt_id"]).any()
    assert list(rollouts.variant.unique()) == ["base", "smollm2_135m_k1"]
    assert set(scores.judge) == {"offline"} and set(scores.compliance) <= {0, 0.5, 1}
    by_kind = duckdb.sql(
        f"select form, kind, avg(declined::int) d from '{finished}/rollouts.parquet' join '{finished}/scores.parquet' "
        "using (variant_hash, prompt_id) group by all"
    ).fetchall()
    declined = {(form, kind): share for form, kind, share in by_kind}
    print(declined)
    assert declined["base", "declined"] > 0.4 > 0.1 > declined["base", "answerable"]


def test_a_second_run_returns_at_once_with_the_same_summary(finished: Path) -> None:
    before = (finished / "rollouts.parquet").stat().st_mtime_ns
    started = time.monotonic()
    done = ran("rollout", *rollout(finished)[3:])
    print(done.stdout, f"{time.monotonic() - started:.1f} s")
    assert done.returncode == 0 and "NOT a language model" in done.stdout
    assert "starting vLLM" not in done.stderr
    assert (finished / "rollouts.parquet").stat().st_mtime_ns == before


def test_another_configuration_is_refused_in_a_finished_run(finished: Path) -> None:
    done = ran("rollout", *rollout(finished, "--alpha", "0.5")[3:])
    assert done.returncode == 2
    assert "config.edit.alpha: 1.0 -> 0.5" in done.stderr and "--clean" in done.stderr


def kill_at(command: list[str], sign: str, shards: Path | None = None) -> None:
    """Start the command and SIGKILL its process group once a line of stderr holds `sign` and, if given, shards are there."""
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stderr is not None
    assert any(sign in line for line in process.stderr), f"no line with {sign!r}"
    if shards is not None:
        wait_for(lambda: process.poll() is not None or bool(list(shards.glob("[0-9]*.parquet"))))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


EVERY_STAGE = ["stage: directions", "stage: rollouts", "stage: likelihoods", "stage: scores", "stage: summary"]


@pytest.mark.slow
@pytest.mark.parametrize("signs", [EVERY_STAGE[1:2], EVERY_STAGE], ids=["once", "in every stage"])
def test_sigkill_and_running_again_gives_the_same_rows_once(signs: list[str], finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    for sign in signs:
        kill_at(rollout(out), sign, out / "rollouts.shards" if sign == "stage: rollouts" else None)
    done = run(rollout(out))
    assert done.returncode == 0, done.stderr
    keys = ["variant_hash", "prompt_id"]
    whole, killed = (pd.read_parquet(path / "rollouts.parquet") for path in (finished, out))
    assert killed[keys].equals(whole[keys])
    same = (killed.response == whole.response).mean()
    print(f"{same:.1%} of the texts are equal (greedy text depends on what else is in the batch)")
    assert same > 0.9
    assert pd.read_parquet(out / "scores.parquet")[keys].equals(whole[keys])
    assert not (out / "rollouts.shards").exists()


@pytest.mark.slow
def test_the_benchmark_prints_its_ratio_with_what_it_was_measured_on() -> None:
    command = [sys.executable, "-m", "engine.commands.bench_rollout", "--num-requests", "8", "--rounds", "1", "--json"]
    done = run([*command, "--set", "sampling.max_tokens=8"])
    result = json.loads(done.stdout)
    print(result)
    assert result["prompts"] == 8 and result["ratio_to_vllm"] > 0
    assert {"versions", "hardware", "commit", "model"} <= result.keys()


@pytest.fixture(scope="module")
def edited(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variant's checkpoint, from the finished run's directions."""
    out = tmp_path_factory.mktemp("edited") / "model"
    command = [sys.executable, "-m", "engine.commands.edit", "--variant", "smollm2_135m_k1", "--set", "data.num_pairs=24"]
    done = run([*command, "--run", str(finished), "--out", str(out), "--json"])
    assert done.returncode == 0, done.stderr
    hashes = set(pd.read_parquet(finished / "rollouts.parquet").variant_hash)
    assert json.loads(done.stdout)["variant_hash"] in hashes
    again = run([*command, "--run", str(finished), "--out", str(out)])
    assert again.returncode == 0 and "holds this variant already" in again.stderr
    other = run([*command, "--alpha", "0.5", "--run", str(out.parent / "other"), "--out", str(out)])
    assert other.returncode == 2 and "exists already (an edited checkpoint)" in other.stderr
    return out


@pytest.mark.slow
def test_transformers_opens_the_edited_checkpoint_and_its_card_says_what_was_removed(edited: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(edited, dtype=torch.bfloat16)
    assert model.config.num_hidden_layers == 30
    card, record = (edited / "README.md").read_text(), json.loads((edited / "edit.json").read_text())
    for fact in (record["base_hash"], record["basis_hash"], record["variant_hash"], "research", "layers [22]"):
        assert fact in card


@pytest.mark.slow
def test_plain_vllm_serve_opens_the_edited_checkpoint(edited: Path, tmp_path: Path) -> None:
    with serve(edited, "k1", "k", tmp_path / "log") as url:
        body = {
            "model": "k1",
            "messages": [{"role": "user", "content": "What is in my pocket?"}],
            "max_tokens": 8,
            "temperature": 0,
        }
        request = urllib.request.Request(
            f"{url}/chat/completions",
            json.dumps(body).encode(),
            {"Authorization": "Bearer k", "Content-Type": "application/json"},
        )
        reply = json.loads(urllib.request.urlopen(request, timeout=60).read())
    print(reply["choices"][0]["message"]["content"])
    assert reply["choices"][0]["message"]["content"]
