"""Streams kept prompt by prompt: exact in any batch, at any position, up to any layer, and over responses."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from extraction.controls import Control, swapped_places
from extraction.directions import Streams, directions_from
from extraction.errors import ExtractionError
from extraction.hooks import truncated
from extraction.prefill import BATCH_TOKENS
from extraction.residuals import collect, padded_means, response_means, tokens_that_fit
from tests.forward import residual_stream
from tests.tiny import BLOCKS, EDITOR_CONFIGS, HIDDEN, tiny_model

LENGTHS = (1, 2, 2, 5, 7, 11, 3, 16, 7)
PROMPTS = [[1, 17, 23, *range(5, 5 + length), 9, 4] for length in LENGTHS]
RESPONSES = [[40 + place, 50, 3][: 1 + place % 3] for place in range(len(PROMPTS))]


def alone(model: torch.nn.Module, token_ids: list[int], places: list[int]) -> torch.Tensor:
    """One sequence by itself, by transformers alone: (L+1, P, H)."""
    return residual_stream(model, token_ids)[:, places]


@pytest.mark.parametrize("family", sorted(EDITOR_CONFIGS))
def test_every_prompts_stream_is_what_it_is_alone(family: str) -> None:
    model = tiny_model(family, torch.float32)
    found = collect(model, PROMPTS, [-1, -3], batch_tokens=30)
    expected = torch.stack([alone(model, prompt, [len(prompt) - 1, len(prompt) - 3]) for prompt in PROMPTS], dim=1)
    difference = float((found - expected).abs().max() / expected.abs().max())
    print(f"{family}: largest difference {difference:.1e} of the largest component")
    assert found.shape == (BLOCKS + 1, len(PROMPTS), 2, HIDDEN)
    assert difference < 2e-5


@pytest.mark.parametrize("family", sorted(EDITOR_CONFIGS))
@pytest.mark.parametrize("last_layer", range(1, BLOCKS + 1))
def test_a_pass_that_ends_early_gives_the_same_layers_and_leaves_the_model_whole(family: str, last_layer: int) -> None:
    model = tiny_model(family, torch.float32)
    ran: list[int] = []
    blocks = getattr(model.base_model, "layers", None) or model.base_model.h
    for number, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    whole = collect(model, PROMPTS, [-1])
    ran.clear()
    found = collect(model, PROMPTS, [-1], last_layer=last_layer)
    assert torch.equal(found, whole[: last_layer + 1])
    assert set(ran) == set(range(last_layer))
    assert torch.equal(collect(model, PROMPTS, [-1]), whole)


def test_a_pass_cannot_end_where_there_is_no_layer() -> None:
    with pytest.raises(ExtractionError, match="layers 1 to 3; found 4"), truncated(tiny_model("llama"), 4):
        pass


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_response_means_are_over_the_responses_tokens_alone(attention: str) -> None:
    model = tiny_model("llama", torch.float32)
    model.set_attn_implementation(attention)
    found = response_means(model, PROMPTS, RESPONSES)
    for place, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        tokens = list(range(len(prompt), len(prompt) + len(response)))
        expected = alone(model, prompt + response, tokens).double().mean(dim=1)
        assert torch.allclose(found[:, place], expected, atol=1e-5)
    with pytest.raises(ExtractionError, match="Response 1 is empty"):
        response_means(model, PROMPTS[:2], [[4], []])


def test_naive_padding_is_reproduced_and_is_wrong() -> None:
    model = tiny_model("llama", torch.float32)
    width = max(map(len, PROMPTS))
    padded = [[2] * (width - len(prompt)) + prompt for prompt in PROMPTS]
    expected = torch.stack([alone(model, prompt, [width - 1])[:, 0] for prompt in padded]).double().mean(dim=0)
    found = padded_means(model, PROMPTS, 2, len(PROMPTS))
    exact = collect(model, PROMPTS, [-1])[:, :, 0].double().mean(dim=1)
    print(f"from the reference {float((found - expected).abs().max()):.1e}, from exact {float((found - exact).abs().max()):.2f}")
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found[1:], exact[1:], atol=1e-2)
    same = [prompt for prompt in PROMPTS if len(prompt) == len(PROMPTS[1])]
    assert torch.allclose(padded_means(model, same, 2, 2), collect(model, same, [-1])[:, :, 0].double().mean(dim=1), atol=1e-5)


def test_swapping_every_side_turns_the_direction_round_and_half_of_them_shrinks_it() -> None:
    generator = torch.Generator().manual_seed(0)
    declined = torch.randn(3, 40, 8, generator=generator) + 2
    streams = Streams(declined, torch.randn(3, 40, 8, generator=generator))
    plain = directions_from(streams, "last").mean_difference_LH
    turned = directions_from(streams.swapped(range(40)), "last").mean_difference_LH
    half = directions_from(streams.swapped(swapped_places([""] * 40, Control("shuffled", 1, 0))), "last").mean_difference_LH
    assert torch.allclose(turned, -plain)
    assert float(half.norm()) < 0.3 * float(plain.norm())


def test_another_estimator_is_removed_and_added_along_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    streams = Streams(torch.randn(2, 30, 8, generator=generator) + 1, torch.randn(2, 30, 8, generator=generator))
    found = directions_from(streams, "last", "pca")
    assert found.estimator == "pca"
    assert torch.equal(found.direction_LH, found.estimated_LH)
    along = (found.steering_LH * found.direction_LH).sum(dim=-1, keepdim=True) * found.direction_LH
    assert torch.allclose(along, found.steering_LH)
    plain = directions_from(streams, "last")
    assert torch.equal(plain.steering_LH, plain.mean_difference_LH)
    assert torch.equal(plain.direction_LH, plain.mean_difference_LH)


def test_a_batch_is_never_larger_than_the_memory_or_what_keeps_the_hardware_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = tiny_model("llama"), {}
    for free in (10**4, 10**6, 10**12):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        sizes[free] = tokens_that_fit(model, 20)
    print(sizes)
    assert sizes[10**4] < sizes[10**6] < sizes[10**12] == BATCH_TOKENS
    assert sizes[10**4] >= 1
