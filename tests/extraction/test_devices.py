"""A model whose blocks accelerate keeps apart and brings in one by one gives what the whole model gives."""
# B = prompts, P = positions, H = hidden size

import pytest
import torch
from accelerate import disk_offload
from torch import nn

from editing.projection import orthonormal_basis
from extraction.devices import devices_of, follower, input_device
from extraction.generate import greedy
from extraction.intervention import addition, stream_ablation
from extraction.residuals import collect, response_means, tokens_that_fit
from extraction.teacher import mean_logprobs
from tests.tiny import BLOCKS, HIDDEN, tiny_model

PROMPTS = [[1, 5, 9, 17, 3], [1, 5, 22, 8], [1, 5, 9, 40, 41, 42, 7]]
RESPONSES = [[4, 6], [11], [30, 31, 32]]
VECTOR = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(3))
BASIS = orthonormal_basis(torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(4)))


@pytest.fixture(scope="module", params=["llama", "gemma"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, nn.Module]:
    whole, apart = tiny_model(request.param, torch.float32), tiny_model(request.param, torch.float32)
    apart.tie_weights()
    folder = tmp_path_factory.mktemp("offloaded")
    disk_offload(apart, str(folder), execution_device=torch.device("cpu"))
    return whole, apart


def test_the_split_models_weights_are_not_in_place(models: tuple[nn.Module, nn.Module]) -> None:
    assert torch.device("meta") in devices_of(models[1])


def test_token_ids_go_where_the_embedding_is_computed(models: tuple[nn.Module, nn.Module]) -> None:
    assert input_device(models[1]) == torch.device("cpu")


def test_a_batch_is_sized_for_a_split_model(models: tuple[nn.Module, nn.Module]) -> None:
    assert tokens_that_fit(models[1], 8) == tokens_that_fit(models[0], 8)


def test_residual_streams_are_the_whole_models(models: tuple[nn.Module, nn.Module]) -> None:
    whole, apart = (collect(model, PROMPTS, [-1, -2]) for model in models)
    assert torch.equal(whole, apart)


def test_response_means_are_the_whole_models(models: tuple[nn.Module, nn.Module]) -> None:
    whole, apart = (response_means(model, PROMPTS, RESPONSES) for model in models)
    assert torch.equal(whole, apart)


def test_likelihoods_are_the_whole_models(models: tuple[nn.Module, nn.Module]) -> None:
    whole, apart = (mean_logprobs(model, PROMPTS, RESPONSES) for model in models)
    assert whole == apart


def test_an_added_vector_reaches_every_device(models: tuple[nn.Module, nn.Module]) -> None:
    found = []
    for model in models:
        with addition(model, BLOCKS - 1, VECTOR):
            found.append(collect(model, PROMPTS, [-1]))
    assert torch.equal(*found)


def test_an_ablated_subspace_reaches_every_device(models: tuple[nn.Module, nn.Module]) -> None:
    found = []
    for model in models:
        with stream_ablation(model, BASIS):
            found.append(collect(model, PROMPTS, [-1]))
    assert torch.equal(*found)


def test_generation_is_the_whole_models(models: tuple[nn.Module, nn.Module]) -> None:
    whole, apart = (greedy(model, PROMPTS, 4) for model in models)
    assert whole == apart


def test_a_follower_copies_once_for_each_device() -> None:
    beside = follower(VECTOR)
    half = torch.zeros(2, dtype=torch.float16)
    assert beside(half) is beside(half)


def test_a_follower_has_the_others_dtype() -> None:
    assert follower(VECTOR)(torch.zeros(2, dtype=torch.float16)).dtype == torch.float16
