"""Sampled generation in a real engine, of more prompts than one step holds."""

from pathlib import Path

import pytest

from engine.configs.load import validate
from engine.configs.schema import SamplingConfig
from engine.inference.arguments import engine_arguments
from tests.swapped import tiny_replica
from tests.tiny import save_tiny

PROMPTS = [[1, 17, 23, *range(5, 5 + length), 9, 4] for length in range(20, 40)]
SAMPLED = {"temperature": 1.0, "max_tokens": 4}


@pytest.mark.engine
def test_more_prompts_than_a_step_holds_are_sampled_again_alike(tmp_path: Path) -> None:
    """A step of 64 tokens ends in the middle of a prompt; on a CPU vLLM broke off there."""
    folder = save_tiny("llama served", tmp_path / "model")
    with tiny_replica(folder, vllm={"max_num_batched_tokens": 64}, sampling=SAMPLED) as (replica, base, _):
        replica.swap(base)
        first, second = (
            {one.index: one.token_ids for one in replica.generate(PROMPTS, SamplingConfig(**SAMPLED), together=True)}
            for _ in range(2)
        )
    assert first == second


@pytest.mark.parametrize(("temperature", "whole"), [(0.0, True), (1.0, False)])
def test_prompts_are_computed_whole_where_they_are_sampled_on_a_cpu(tmp_path: Path, temperature: float, whole: bool) -> None:
    folder = save_tiny("llama", tmp_path / "model")
    table = {"variant": "tiny", "model": {"path": str(folder)}, "directions": {"layers": [1]}}
    config = validate({**table, "sampling": {"temperature": temperature}}, "a test")
    assert engine_arguments(config, folder, has_gpu=False).get("enable_chunked_prefill", True) == whole
