"""Sampled generation in a real engine, of more prompts than one step holds."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.configs.load import validate
from engine.configs.schema import SamplingConfig
from engine.inference.arguments import engine_arguments
from engine.inference.replica import Replica
from tests.swapped import tiny_replica
from tests.tiny import save_tiny

SAMPLES = 3
PROMPTS = [[1, 17, 23, *range(5, 5 + length), 9, 4] for length in range(20, 40)]
SAMPLED = {"temperature": 1.0, "max_tokens": 4}


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = save_tiny("llama served", tmp_path_factory.mktemp("sampled") / "model")
    with tiny_replica(folder, vllm={"max_num_batched_tokens": 64}, sampling=SAMPLED) as (engine, base, _):
        engine.swap(base)
        yield engine


def answers(replica: Replica, prompts: list[list[int]], samples: list[int] | None = None) -> dict[int, list[int]]:
    found = replica.generate(prompts, SamplingConfig(**SAMPLED), together=True, samples=samples)
    return {one.index: one.token_ids for one in found}


@pytest.mark.engine
def test_more_prompts_than_a_step_holds_are_sampled_again_alike(replica: Replica) -> None:
    """A step of 64 tokens ends in the middle of a prompt; on a CPU vLLM broke off there."""
    assert answers(replica, PROMPTS) == answers(replica, PROMPTS)


@pytest.mark.engine
def test_a_prompts_samples_come_back_at_their_places(replica: Replica) -> None:
    together = answers(replica, [prompt for prompt in PROMPTS[:4] for _ in range(SAMPLES)], [*range(SAMPLES)] * 4)
    alone = [answers(replica, [prompt], [number])[0] for prompt in PROMPTS[:4] for number in range(SAMPLES)]
    assert [together[place] for place in range(4 * SAMPLES)] == alone


@pytest.mark.engine
def test_samples_of_a_prompt_differ(replica: Replica) -> None:
    found = answers(replica, [PROMPTS[0]] * SAMPLES, [*range(SAMPLES)])
    assert len({tuple(ids) for ids in found.values()}) == SAMPLES


@pytest.mark.engine
def test_samples_that_nobody_reads_leave_nothing_behind(replica: Replica) -> None:
    asked = [*[PROMPTS[0]] * SAMPLES, PROMPTS[1]]
    with closing(replica.generate(asked, SamplingConfig(**SAMPLED), samples=[0, 1, 2, 0])) as answered:  # type: ignore[type-var]
        next(answered)
    replica.forget_prompts()
    assert not replica.llm.llm_engine.has_unfinished_requests()


@pytest.mark.parametrize(("temperature", "whole"), [(0.0, True), (1.0, False)])
def test_prompts_are_computed_whole_where_they_are_sampled_on_a_cpu(tmp_path: Path, temperature: float, whole: bool) -> None:
    folder = save_tiny("llama", tmp_path / "model")
    table = {"variant": "tiny", "model": {"path": str(folder)}, "directions": {"layers": [1]}}
    config = validate({**table, "sampling": {"temperature": temperature}}, "a test")
    assert engine_arguments(config, folder, has_gpu=False).get("enable_chunked_prefill", True) == whole
