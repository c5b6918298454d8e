"""Batched extraction equals one prompt at a time for the families near another one, and on both sides of a length switch."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from extraction.hooks import length_switch
from extraction.prefill import laid_out
from extraction.residuals import collect
from extraction.screening import next_token_logprobs
from tests.forward import residual_stream
from tests.tiny import BLOCKS, HIDDEN, LLAMA_SIZES, NEAR_CONFIGS, TOKENS, tiny_model

LENGTHS = (1, 2, 2, 5, 7, 11, 3, 16, 7)
PROMPTS = [[1, 17, 23, *range(5, 5 + length), 9, 4] for length in LENGTHS]
SWITCH = 16
ROPES = {
    "longrope": {"short_factor": [1.0] * 6, "long_factor": [4.0] * 6, "original_max_position_embeddings": SWITCH},
    "dynamic": {"factor": 4.0, "original_max_position_embeddings": SWITCH},
}
AROUND = [[first, *range(10, 9 + length)] for first, length in ((1, 12), (1, 15), (1, 16), (1, 17), (1, 17), (1, 22), (2, 30))]


def difference(model: torch.nn.Module, prompts: list[list[int]]) -> float:
    """Of the last token's streams, over the largest component; one by one by transformers alone."""
    expected = torch.stack([residual_stream(model, prompt)[:, [-1]] for prompt in prompts], dim=1)
    return float((collect(model, prompts, [-1], batch_tokens=60) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("family", sorted(NEAR_CONFIGS))
def test_every_prompts_stream_is_what_it_is_alone(family: str) -> None:
    found = difference(tiny_model(family, torch.float32), PROMPTS)
    print(f"{family}: largest difference {found:.1e} of the largest component")
    assert found < 2e-5


@pytest.fixture(params=sorted(ROPES))
def scaled(request: pytest.FixtureRequest) -> torch.nn.Module:
    """A phi3 (longrope) or llama (dynamic) whose frequencies depend on the length from 17 tokens on."""
    family = "phi3" if request.param == "longrope" else "llama"
    rope: dict[str, Any] = {"rope_type": request.param, "rope_theta": 1e4, **ROPES[request.param]}
    phi3 = {"max_position_embeddings": 64, "original_max_position_embeddings": SWITCH}
    window = phi3 if family == "phi3" else {"max_position_embeddings": SWITCH}
    torch.manual_seed(3)
    config = AutoConfig.for_model(family, **{**TOKENS, **LLAMA_SIZES, **window, "rope_parameters": rope})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "embed" not in name:
            parameter.data.mul_(5)
    return model


def fresh(model: torch.nn.Module) -> torch.nn.Module:
    """The same weights in a model that has seen no prompt: dynamic frequencies are remembered."""
    other = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32, attn_implementation="eager").eval()
    other.load_state_dict(model.state_dict())
    return other


def test_the_switch_is_read_from_the_configuration(scaled: torch.nn.Module) -> None:
    assert length_switch(scaled) == SWITCH


def test_an_ordinary_model_has_no_switch() -> None:
    assert length_switch(tiny_model("llama")) is None


def test_batched_is_one_by_one_on_both_sides_of_the_switch(scaled: torch.nn.Module) -> None:
    alone = [residual_stream(fresh(scaled), prompt)[:, -1] for prompt in AROUND]
    found = collect(scaled, AROUND, [-1])[:, :, 0]
    again = collect(scaled, AROUND, [-1])[:, :, 0]  # nothing of the first call's lengths is left
    expected = torch.stack(alone, dim=1)
    assert found.shape == (BLOCKS + 1, len(AROUND), HIDDEN)
    assert float((found - expected).abs().max() / expected.abs().max()) < 2e-5
    assert torch.equal(found, again)


def test_logits_are_one_by_one_on_both_sides_of_the_switch(scaled: torch.nn.Module) -> None:
    with torch.inference_mode():
        alone = torch.stack([fresh(scaled)(torch.tensor([prompt])).logits[0, -1].log_softmax(-1) for prompt in AROUND])
    found = next_token_logprobs(scaled, laid_out(scaled, AROUND))
    assert float((found - alone).abs().max()) < 2e-5
