"""sampling.thinking_tokens in a real engine, on a tiny random model that thinks: the trace is ended for it."""

from collections.abc import Iterator

import pytest

from engine.configs.schema import SamplingConfig
from engine.inference.replica import Replica
from extraction.thinking import Markers
from tests.swapped import tiny_replica
from tests.tiny import save_tiny, save_tokenizer

START, END = "[", "]"
START_IDS, END_IDS = (4 + ord(START) - 32,), (4 + ord(END) - 32,)
PROMPT = [1, 40, 41, *START_IDS]
BOUNDED = {"temperature": 0.0, "max_tokens": 12, "thinking_tokens": 3}


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = save_tokenizer(save_tiny("llama served", tmp_path_factory.mktemp("budget") / "model", sizes={"vocab_size": 128}))
    options = {"skip_tokenizer_init": False}
    with tiny_replica(folder, vllm=options, sampling=BOUNDED, reasoning=f"{START},{END}") as (engine, base, _):
        engine.swap(base)
        yield engine


def said(replica: Replica, **settings: int | None) -> list[int]:
    return next(replica.generate([PROMPT], SamplingConfig(**{**BOUNDED, **settings}))).token_ids


@pytest.mark.engine
@pytest.mark.parametrize("bound", [0, 3, 5])
def test_a_trace_ends_at_its_bound(replica: Replica, bound: int) -> None:
    assert Markers(START_IDS, END_IDS).parts(PROMPT, said(replica, thinking_tokens=bound)).end == bound


@pytest.mark.engine
def test_without_a_bound_it_goes_on(replica: Replica) -> None:
    assert Markers(START_IDS, END_IDS).parts(PROMPT, said(replica, thinking_tokens=None)).unfinished
