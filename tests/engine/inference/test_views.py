"""Views read by a real engine, against transformers; prompts' keys and values are shared, and what is shared is never guessed."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.inference.arguments import SMALL_BLOCK
from engine.inference.replica import Replica
from engine.inference.responses import teacher_forced
from engine.inference.views import ViewTokens, base_views
from judging.view import NEXT_TOKENS, VIEWED_TOKENS, BaseView
from tests.swapped import tiny_replica
from tests.tiny import save_tiny

pytestmark = [pytest.mark.engine, pytest.mark.slow]
CLOSE = 2e-4  # nats a token, in float32
CONTROL = tuple(range(5, 5 + SMALL_BLOCK + 4))


def tokens(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(4, 90) for _ in range(count)]


PROMPTS = [tokens(SMALL_BLOCK + 7 + place, place) for place in range(3)]
ASKED = [(PROMPTS[place % 3], tokens(length, 10 + place)) for place, length in enumerate([24, 16, 5, 1, 30, 16, 0])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(
        "llama served", tmp_path_factory.mktemp("views"), dtype=torch.float32, sizes={"max_position_embeddings": 256}
    )


@pytest.fixture(scope="module")
def replica(folder: Path) -> Iterator[Replica]:
    settings = {"block_size": SMALL_BLOCK, "enable_prefix_caching": True, "max_model_len": 128}
    with tiny_replica(folder, vllm=settings) as (replica, base, _):
        replica.swap(base)
        yield replica


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def logprobs_behind(model: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
    """The reference: log-probabilities of each next token from the prompt's last one on."""
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 :].double()
    return logits.log_softmax(-1)


def mean_of(model: Any, prompt: list[int], response: list[int]) -> float:
    found = logprobs_behind(model, prompt, response)
    return float(sum(found[place, token] for place, token in enumerate(response)) / len(response))


@pytest.fixture(scope="module")
def openings(model: Any) -> frozenset[int]:
    """Two of the first prompt's likeliest answers, and a token that is among no prompt's."""
    likeliest = logprobs_behind(model, PROMPTS[0], [])[0].topk(4).indices.tolist()
    return frozenset(likeliest[1:3])


@pytest.fixture(scope="module")
def found(replica: Replica, openings: frozenset[int]) -> list[BaseView | None]:
    prompts, responses = zip(*ASKED, strict=True)
    return base_views(replica, prompts, responses, ViewTokens((CONTROL,), openings))


@pytest.mark.parametrize("place", range(6))
def test_the_likelihood_is_transformers(place: int, found: list[BaseView | None], model: Any) -> None:
    view, (prompt, response) = found[place], ASKED[place]
    assert view is not None and view.given == pytest.approx(mean_of(model, prompt, response[:VIEWED_TOKENS]), abs=CLOSE)


@pytest.mark.parametrize("place", range(6))
def test_so_is_that_behind_another_request(place: int, found: list[BaseView | None], model: Any) -> None:
    view, (_, response) = found[place], ASKED[place]
    expected = mean_of(model, list(CONTROL), response[:VIEWED_TOKENS])
    assert view is not None and view.otherwise == pytest.approx(expected, abs=CLOSE)


def test_the_share_of_openings_is_transformers(found: list[BaseView | None], model: Any, openings: frozenset[int]) -> None:
    likeliest = logprobs_behind(model, PROMPTS[0], [])[0].exp().topk(NEXT_TOKENS)
    pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    view = found[0]
    assert view is not None and view.refusing == pytest.approx(
        sum(share for token, share in pairs if token in openings), abs=CLOSE
    )


def test_an_empty_response_has_no_view(found: list[BaseView | None]) -> None:
    assert found[6] is None


def read_noting(replica: Replica, prompt: list[int], responses: list[list[int]]) -> tuple[list[float | None], list[int]]:
    """Mean log-probabilities read with sharing, and how many tokens of each reading the engine took from its cache."""
    cached: list[int] = []

    def ask(sequences: list[list[int]], places: list[int], parameters: Any) -> Iterator[tuple[int, Any]]:
        for place, output in replica.outputs(sequences, parameters):
            cached.append(output.num_cached_tokens)
            yield place, output

    return teacher_forced(ask, [prompt] * len(responses), responses, shared=True), cached


def test_a_prompt_is_computed_once(replica: Replica) -> None:
    prompt = tokens(SMALL_BLOCK + 3, 77)
    replica.forget_prompts()
    replica.opening_shares([prompt], {1}, 1)
    assert read_noting(replica, prompt, [tokens(4, 78), tokens(4, 79)])[1] == [SMALL_BLOCK, SMALL_BLOCK]


def test_a_response_that_is_in_the_cache_is_read_all_the_same(replica: Replica, model: Any) -> None:
    """Its numbers are not in the cache, only its keys and values."""
    prompt, response = tokens(SMALL_BLOCK - 2, 80), tokens(SMALL_BLOCK + 10, 81)
    replica.forget_prompts()
    read_noting(replica, prompt, [response])
    again, cached = read_noting(replica, prompt, [response])
    assert max(cached) > len(prompt)
    assert again == pytest.approx([mean_of(model, prompt, response)], abs=CLOSE)
