"""bin/bench on SmolLM2, against lm-eval run separately on the folded checkpoint, and what bad input gets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from engine.configs.load import load_config
from engine.errors import EngineError
from engine.lmeval import job
from engine.lmeval.catalogue import OWN
from engine.lmeval.endpoint import EndpointModel
from engine.runs.session import Session
from tests.commands import ran

ROOT = Path(__file__).parents[3]
LIMIT = 16
FEW = ["--variant=smollm2_135m_k1", "--set=data.num_pairs=16"]


def run(cwd: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "REFUSAL_ROLLOUT_CACHE": str(ROOT / ".cache")}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.usefixtures("smollm2_dir")
def test_log_likelihoods_equal_lm_evals_own_on_the_folded_checkpoint(tmp_path: Path, machine_dtype: torch.dtype) -> None:
    done = run(tmp_path, "engine.commands.bench", *FEW, f"--limit={LIMIT}", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    done = run(tmp_path, "engine.commands.edit", *FEW, "--out", str(tmp_path / "folded"))
    assert done.returncode == 0, done.stderr
    dtype = str(machine_dtype).removeprefix("torch.")
    engine = f"dtype={dtype},enforce_eager=True,distributed_executor_backend=uni,kv_cache_memory_bytes=1000000000"
    arguments = f"pretrained={tmp_path}/folded,{engine}"
    flags = [
        "--model",
        "vllm",
        "--model_args",
        arguments,
        "--include_path",
        str(OWN),
        "--tasks",
        "everyday",
        "--limit",
        str(LIMIT),
    ]
    done = run(OWN, "lm_eval", "run", *flags, "--log_samples", "--output_path", str(tmp_path / "theirs"))
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "theirs").rglob("samples_everyday_*.jsonl")
    theirs = {row["doc_id"]: row for row in map(json.loads, file.read_text().splitlines())}
    rows = pd.read_parquet(tmp_path / "runs/smollm2_135m_k1/bench.parquet")
    ours, base = rows.query("variant == 'smollm2_135m_k1'"), rows.query("variant == 'base'")
    assert len(ours) == len(theirs) == LIMIT
    worst = 0.0
    for row in ours.itertuples():
        mine, other = json.loads(row.responses), theirs[row.doc_id]["filtered_resps"]
        worst = max(worst, *(abs(float(a[0]) - float(b[0])) for a, b in zip(mine, other, strict=True)))
        assert row.doc_hash == theirs[row.doc_id]["doc_hash"] and row.value == theirs[row.doc_id]["acc_norm"]
    print(f"largest difference of a log-likelihood over {LIMIT} documents x 4 answers: {worst:.4f}")
    print(result["tasks"])
    assert worst < 0.05
    assert list(base.responses) != list(ours.responses)


def test_a_run_of_other_variants_and_a_server_of_another_base_are_named(tmp_path: Path, smollm2_dir: Path) -> None:
    rows = [{"variant": "base", "variant_hash": "b" * 16}, {"variant": "k1", "variant_hash": "a" * 16}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rollouts.parquet")
    job._check_run(tmp_path, {"base": "b" * 16, "k1": "a" * 16, "k3": "c" * 16})
    job._check_run(tmp_path / "nowhere", {"k1": "c" * 16})
    with pytest.raises(EngineError, match=r"holds rollouts of another k1 \(a{16}; this one is c{16}\). Name another folder"):
        job._check_run(tmp_path, {"k1": "c" * 16})
    session = Session(load_config("smollm2_135m_k1"))
    job._check_base(session, EndpointModel("base", session.base.hash, 1024))
    job._check_base(session, EndpointModel("base", None, 1024))  # a server that is not ours tells no hash
    with pytest.raises(EngineError, match=r"The server's base is c{16}, and this variant's is \w{16}"):
        job._check_base(session, EndpointModel("base", "c" * 16, 1024))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--margin=2"], "--margin takes a share between 0 and 1, such as 0.02 for 2 points; found 2."),
        (["--tasks=evryday"], "lm-eval has no task 'evryday'. Nearest: everyday"),
        (["--limit=101"], "Task everyday has 100 documents; --limit asks for 101"),
        (["--tasks="], "--tasks names no task"),
        (["--data=arc_easy=x.jsonl"], "--data names arc_easy, which is not among the tasks"),
        (["--data=everyday"], "--data takes TASK=FILE"),
        (["--num-fewshot=100"], "Task everyday has 100 documents to take examples from"),
        (["--server=http://127.0.0.1:9/v1"], "http://127.0.0.1:9/v1/models does not answer"),
        (["--layers=40"], "Layer 40 is out of range"),
    ],
)
@pytest.mark.usefixtures("smollm2_dir")
def test_bad_input_is_one_message_before_an_engine_starts(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = ran("bench", *FEW, *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists()
