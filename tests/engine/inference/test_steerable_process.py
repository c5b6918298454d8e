"""Interventions in an engine of its own process, as on a GPU, and on two ranks: equal to hooks, and equal on the ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from editing.plan import Scope
from tests.ablated import stream_writers
from tests.steered import of_transformers, stream_changed, unit_rows, without
from tests.tiny import BLOCKS, HIDDEN, save_tiny

pytestmark = [pytest.mark.engine, pytest.mark.slow]
PROMPTS = [[1, 5 + number, 9, 17, 3 + number] for number in range(8)]
# The driver is a file: a spawned process imports it again.
DRIVER = """
import json, sys
from pathlib import Path

def main():
    from engine.environment import set_environment
    set_environment()
    import torch
    from engine.configs.load import validate
    from engine.configs.schema import SamplingConfig
    from engine.errors import EngineError
    from engine.inference.arguments import engine_arguments
    from engine.inference.steerable import SteerableReplica, steerable_arguments
    from engine.runtime.requests import Asked
    from tests.steered import unit_rows

    folder, vllm, prompts = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    table = {"variant": "tiny", "model": {"path": str(folder), "dtype": "float32"}, "directions": {"layers": [1]}, "vllm": vllm}
    arguments = engine_arguments(validate(table, "a test"), folder, has_gpu=False)
    engine = SteerableReplica(steerable_arguments(arguments, sites=("inputs", "writes")))
    rows = unit_rows(engine.hidden_size, 2)
    answers = engine.llm.collective_rpc("runtime_put", args=("bad", b"no table"))
    engine.put("q", rows)
    ways = [None, Asked("q", 1.0), Asked("q", 1.0, site="writes")]
    cases = [(prompt, way) for prompt in prompts for way in ways]
    sampling = SamplingConfig(temperature=0, max_tokens=5)
    said = engine.generate([prompt for prompt, _ in cases], sampling, [way for _, way in cases], together=True)
    tokens = [one.token_ids for one in sorted(said, key=lambda one: one.index)]
    print("FOUND", json.dumps({"tokens": tokens, "errors": [answer["error"] for answer in answers]}))
    engine.close()

if __name__ == "__main__":
    main()
"""
ONE = ({"distributed_executor_backend": "uni"}, {})
TWO = ({"distributed_executor_backend": "mp", "tensor_parallel_size": 2}, {"VLLM_CPU_SIM_MULTI_NUMA": "1"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama served", tmp_path_factory.mktemp("steered") / "model", dtype=torch.float32)


@pytest.fixture(scope="module", params=[ONE, TWO], ids=["one rank", "two ranks"])
def found(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    vllm, environment = request.param
    script = tmp_path_factory.mktemp("driver") / "driver.py"
    script.write_text(DRIVER)
    vllm = {"skip_tokenizer_init": True, "kv_cache_memory_bytes": 2**26, **vllm}
    command = [sys.executable, str(script), str(folder), json.dumps(vllm), json.dumps(PROMPTS)]
    project = str(Path(__file__).resolve().parents[3])
    own = {"PYTHONPATH": project, "VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_KVCACHE_SPACE": "1", **environment}
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stderr[-3000:]
    return {**json.loads(lines[0].removeprefix("FOUND ")), "ranks": vllm.get("tensor_parallel_size", 1)}


def test_a_mixed_batch_is_that_of_hooks(found: dict[str, Any], folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    change = without(unit_rows(HIDDEN, 2), 1.0)
    base = of_transformers(model, PROMPTS, 5)
    with stream_changed(model, range(BLOCKS), change):
        inputs = of_transformers(model, PROMPTS, 5)
    for module in stream_writers(model, Scope()):
        module.register_forward_hook(lambda module, args, output: change(output.double()).float())
    writes = of_transformers(model, PROMPTS, 5)
    expected = [said.token_ids for each in zip(base, inputs, writes, strict=True) for said in each]
    assert found["tokens"] == expected


def test_every_rank_answers_for_rows_that_are_not_readable(found: dict[str, Any]) -> None:
    assert found["errors"] == ["SafetensorError"] * found["ranks"]
