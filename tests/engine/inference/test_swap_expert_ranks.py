"""Experts over two tensor-parallel ranks of a real engine, in processes of their own: columns each, biases on the first alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from tests.greedy import by_transformers
from tests.tiny import save_tiny

pytestmark = [pytest.mark.engine, pytest.mark.slow]
PROMPTS = [[1, 5 + index, 9, 17, 3 + index] for index in range(6)]
MOST, SEED = 6, 5

# What the engine process does, told as JSON. The driver is a file: a spawned process imports it again.
DRIVER = """
import json, sys
from pathlib import Path

def main():
    folder, wide, vllm, prompts, most, seed = json.loads(sys.argv[1])
    import torch
    from tests.swapped import tiny_replica
    from editing.plan import Scope
    from editing.projection import Edit, orthonormal_basis
    from engine.configs.schema import SamplingConfig
    from engine.errors import EngineError
    from engine.models.variant import Variant

    try:
        with tiny_replica(Path(folder), Scope(embeddings=wide, biases=wide), vllm) as (replica, base, _):
            def tokens():
                found = replica.generate(prompts, SamplingConfig(max_tokens=most), together=True)
                return [one.token_ids for one in sorted(found, key=lambda one: one.index)]

            basis = orthonormal_basis(torch.randn(2, 96, generator=torch.Generator().manual_seed(seed)))
            errors = [replica.swap(base)]
            found = {"base": tokens()}
            errors.append(replica.swap(Variant("k2", base.base_hash, base.plan, Edit(basis, 1.0))))
            found["variant"] = tokens()
            errors.append(replica.swap(base))
            found |= {"base again": tokens(), "errors": errors}
    except EngineError as error:
        found = {"refused": str(error)}
    print("FOUND", json.dumps(found))

if __name__ == "__main__":
    main()
"""
TWO = {"distributed_executor_backend": "mp", "tensor_parallel_size": 2}


def drive(folder: Path, script: Path, *, wide: bool, vllm: dict[str, Any]) -> dict[str, Any]:
    script.write_text(DRIVER)
    sent = json.dumps([str(folder), wide, vllm, PROMPTS, MOST, SEED])
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_SIM_MULTI_NUMA": "1"}
    command = [sys.executable, str(script), sent]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stderr[-3000:]
    return dict(json.loads(lines[0].removeprefix("FOUND ")))


@pytest.fixture(scope="module", params=["qwen3_moe served", "gpt_oss served"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an engine of two ranks says of base, variant and base, and what transformers says on the folded checkpoint."""
    wide = request.param == "gpt_oss served"
    made = tmp_path_factory.mktemp("made")
    folder = save_tiny(request.param, tmp_path_factory.mktemp("model"), dtype=torch.float32)
    checkpoint = open_checkpoint(folder)
    basis_HK = orthonormal_basis(torch.randn(2, checkpoint.hidden_size, generator=torch.Generator().manual_seed(SEED)))
    plan = plan_edit(checkpoint, Scope(embeddings=wide, biases=wide))
    write_edited(checkpoint, plan, Edit(basis_HK, 1.0), made / "folded", record={}, card=lambda proofs: "")
    expected = by_transformers(made / "folded", PROMPTS, MOST)
    return drive(folder, made / "driver.py", wide=wide, vllm=TWO) | {"expected": expected}


def test_two_ranks_write_what_the_folded_checkpoint_gives(found: dict[str, Any]) -> None:
    assert found["variant"] == found["expected"]


def test_the_variant_changes_the_text(found: dict[str, Any]) -> None:
    assert found["variant"] != found["base"]


def test_the_base_comes_back_exactly(found: dict[str, Any]) -> None:
    assert found["base again"] == found["base"]


def test_every_swap_is_within_rounding(found: dict[str, Any]) -> None:
    assert max(found["errors"]) < 1e-3


def test_expert_parallel_ranks_of_a_cpu_are_refused(tmp_path: Path) -> None:
    folder = save_tiny("mixtral served", tmp_path / "model", dtype=torch.float32)
    answer = drive(folder, tmp_path / "driver.py", wide=False, vllm={**TWO, "enable_expert_parallel": True})
    assert "vLLM's CPU kernel takes no expert parallelism" in answer["refused"]
