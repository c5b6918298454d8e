"""An engine in a process of its own, as on a GPU: errors and answers cross it, ranks agree, equal calls make equal batches."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from tests.tiny import HIDDEN, save_tiny

pytestmark = pytest.mark.engine
SEED = 5

# What one engine process does, told as JSON. The driver is a file: a spawned process imports it again.
DRIVER = """
import json, sys
from pathlib import Path

def main():
    from engine.environment import set_environment
    set_environment()
    import torch
    from editing.checkpoint import open_checkpoint
    from editing.plan import plan_edit
    from editing.projection import Edit, orthonormal_basis
    from engine.configs.schema import SamplingConfig
    from engine.configs.load import validate
    from engine.errors import EngineError, SwapFailed
    from engine.models.locate import checkpoint_hash
    from engine.inference.arguments import engine_arguments
    from engine.inference.replica import Replica
    from engine.models.variant import Variant

    folder, folded, vllm = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    table = {"variant": "tiny", "model": {"path": str(folder)}, "directions": {"layers": [1]}, "vllm": vllm}
    config = validate(table, "a test")
    checkpoint = open_checkpoint(folder)
    base = Variant("base", checkpoint_hash(checkpoint), plan_edit(checkpoint), None)
    hidden = checkpoint.hidden_size

    def variant(seed, width=hidden):
        basis = orthonormal_basis(torch.randn(2, width, generator=torch.Generator().manual_seed(seed)))
        return Variant(f"random{seed}", base.base_hash, base.plan, Edit(basis, 1.0))

    def failed(work):
        try:
            work()
        except Exception as error:
            return [type(error).__name__, str(error)]
        return None

    prompts = [[1, 5 + i, 9, 17, 3 + i] for i in range(12)]
    greedy, sampled = SamplingConfig(max_tokens=6), SamplingConfig(max_tokens=6, temperature=1.0)
    replica = Replica(engine_arguments(config, folder, has_gpu=False), base)
    def tokens(sampling=greedy):
        found = replica.generate(prompts, sampling, together=True)
        return [one.token_ids for one in sorted(found, key=lambda one: one.index)]

    found = {"ranks": len(replica.llm.collective_rpc("hotswap_apply", args=("none", None, {}, False)))}
    replica.swap(base)
    found["base"] = tokens()
    found["too wide"] = failed(lambda: replica.swap(variant(7, hidden + 1)))
    found["after a failure"] = failed(lambda: next(replica.generate(prompts, greedy)))
    found["errors after it"] = [replica.swap(variant(seed)) for seed in (1, 2, 5)]
    found["variant"] = tokens()
    found["again"] = tokens()
    found["likelihoods"] = replica.mean_logprobs(prompts, found["variant"])
    found["sampled"] = tokens(sampled)
    found["sampled again"] = tokens(sampled)
    replica.swap(base)
    found["base again"] = tokens()
    replica.close()
    print("FOUND", json.dumps(found))

if __name__ == "__main__":
    main()
"""


def drive(folder: Path, folded: Path, script: Path, vllm: dict[str, Any], **environment: str) -> dict[str, Any]:
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(folder), str(folded), json.dumps(vllm)]
    project = str(Path(__file__).resolve().parents[3])
    run = {**os.environ, "PYTHONPATH": project, "VLLM_CPU_KVCACHE_SPACE": "1", **environment}
    done = subprocess.run(command, env=run, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stderr[-3000:]
    return dict(json.loads(lines[0].removeprefix("FOUND ")))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny checkpoint and the one that the writer makes of it for the same subspace."""
    folder = save_tiny("llama served", tmp_path_factory.mktemp("model"), dtype=torch.float32)
    checkpoint, folded = open_checkpoint(folder), tmp_path_factory.mktemp("made") / "folded"
    basis = orthonormal_basis(torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(SEED)))
    write_edited(checkpoint, plan_edit(checkpoint), Edit(basis, 1.0), folded, record={}, card=lambda proofs: "")
    return folder, folded


VLLM = {"skip_tokenizer_init": True, "kv_cache_memory_bytes": 2**26}
ONE = ("one rank", {"distributed_executor_backend": "uni"}, {})
TWO = ("two ranks", {"distributed_executor_backend": "mp", "tensor_parallel_size": 2}, {"VLLM_CPU_SIM_MULTI_NUMA": "1"})


@pytest.fixture(scope="module", params=[pytest.param(each, id=each[0], marks=pytest.mark.slow) for each in (ONE, TWO)])
def found(request: pytest.FixtureRequest, folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    _, vllm, environment = request.param
    script = tmp_path_factory.mktemp("driver") / "driver.py"
    return drive(*folders, script, VLLM | vllm, VLLM_ENABLE_V1_MULTIPROCESSING="1", **environment) | {"expected": vllm}


def test_every_rank_answers(found: dict[str, Any]) -> None:
    assert found["ranks"] == found["expected"].get("tensor_parallel_size", 1)


def test_an_error_of_the_worker_arrives_as_the_users_error(found: dict[str, Any]) -> None:
    assert found["too wide"][0] == "EngineError"


def test_the_workers_message_arrives_whole(found: dict[str, Any]) -> None:
    assert f"The basis has width {HIDDEN + 1}; this model's hidden size is {HIDDEN}." in found["too wide"][1]


def test_nothing_is_generated_after_a_failed_swap(found: dict[str, Any]) -> None:
    assert "No hot swap has succeeded" in found["after a failure"][1]


def test_the_swaps_after_a_failed_one_give_their_own_answers(found: dict[str, Any]) -> None:
    assert all(0 <= error < 1e-3 for error in found["errors after it"])


def test_the_variant_changes_the_text(found: dict[str, Any]) -> None:
    assert found["variant"] != found["base"]


def test_the_base_comes_back_exactly(found: dict[str, Any]) -> None:
    assert found["base again"] == found["base"]


def test_equal_calls_give_equal_tokens(found: dict[str, Any]) -> None:
    assert found["again"] == found["variant"]


def test_a_seed_repeats_what_was_sampled(found: dict[str, Any]) -> None:
    assert found["sampled again"] == found["sampled"]


def test_prompts_of_equal_length_do_not_draw_the_same_noise(found: dict[str, Any]) -> None:
    assert len({tuple(tokens) for tokens in found["sampled"]}) > 1


def test_likelihoods_are_of_the_responses(found: dict[str, Any]) -> None:
    assert all(-20 < value < 0 for value in found["likelihoods"])


def test_the_swapped_engine_writes_what_the_folded_checkpoint_gives(found: dict[str, Any], folders: tuple[Path, Path]) -> None:
    """Greedy decoding by transformers on the checkpoint that the writer made."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folders[1], dtype=torch.float32).eval()
    expected = []
    for index in range(12):
        ids = [1, 5 + index, 9, 17, 3 + index]
        for _ in range(6):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == model.config.eos_token_id:
                break
        expected.append(ids[5:])
    assert found["variant"] == expected
