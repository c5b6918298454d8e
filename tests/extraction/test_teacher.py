"""Teacher-forced log-probabilities and whole-response KL, against one sequence at a time in float64."""

import pytest
import torch

from extraction.teacher import mean_logprobs, response_divergence, response_logits
from tests.tiny import EDITOR_CONFIGS, tiny_model

PROMPTS = [[1, 17, 23, *range(5, 5 + length), 9, 4] for length in (1, 2, 5, 7, 11, 3)]
RESPONSES = [[40, 50, 3, 7], [41], [], [8, 9, 10, 11, 12, 13], [60, 61], [62, 63, 64]]


def reference(model: torch.nn.Module, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Log-probabilities (R, V) that predict the response's tokens, float64."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0]
    return logits[len(prompt) - 1 : -1].double().log_softmax(-1)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", sorted(EDITOR_CONFIGS))
def test_logits_are_those_of_each_response_alone(family: str, attention: str) -> None:
    model = tiny_model(family, torch.float32)
    if attention == "eager":
        model.set_attn_implementation("eager")
    found = dict(response_logits(model, PROMPTS, RESPONSES, batch_tokens=40))
    assert sorted(found) == [0, 1, 3, 4, 5]
    worst = 0.0
    for index, logits in found.items():
        expected = reference(model, PROMPTS[index], RESPONSES[index])
        worst = max(worst, float((logits.double().log_softmax(-1) - expected).abs().max()))
    print(f"{family}, {attention}: largest difference of a log-probability {worst:.1e}")
    assert worst < 5e-5


def test_mean_logprobs_are_per_token_and_none_for_an_empty_response() -> None:
    model = tiny_model("llama", torch.float32)
    found = mean_logprobs(model, PROMPTS, RESPONSES)
    for prompt, response, value in zip(PROMPTS, RESPONSES, found, strict=True):
        if not response:
            assert value is None
            continue
        rows = reference(model, prompt, response)
        assert value == pytest.approx(float(rows[range(len(response)), response].mean()), abs=1e-5)


def test_divergence_is_the_dense_sum_and_zero_where_nothing_changes() -> None:
    model, other = tiny_model("llama", torch.float32), tiny_model("llama", torch.float32)
    weight = model.base_model.layers[1].mlp.down_proj.weight
    base, changed = weight.detach().clone(), weight.detach() * 1.5
    with torch.no_grad():
        other.base_model.layers[1].mlp.down_proj.weight.copy_(changed)

    def put(value: torch.Tensor) -> None:
        weight.data.copy_(value)

    found = dict(response_divergence(model, PROMPTS, RESPONSES, lambda: put(changed), lambda: put(base), at_once=2))
    assert sorted(found) == [0, 1, 3, 4, 5]
    assert torch.equal(weight, base)
    for index, kl in found.items():
        before, after = (reference(one, PROMPTS[index], RESPONSES[index]) for one in (model, other))
        expected = (before.exp() * (before - after)).sum(dim=-1)
        print(f"response {index}: KL {[round(value, 4) for value in kl.tolist()]}")
        assert len(kl) == len(RESPONSES[index])
        assert torch.allclose(kl, expected, atol=1e-4)
        assert float(kl.max()) > 1e-3
    same = dict(response_divergence(model, PROMPTS, RESPONSES, lambda: None, lambda: None))
    assert max(float(kl.abs().max()) for kl in same.values()) < 1e-6


def test_the_base_comes_back_after_an_error() -> None:
    model, state = tiny_model("llama", torch.float32), []
    steps = response_divergence(model, PROMPTS, RESPONSES, lambda: state.append("changed"), lambda: state.append("base"))
    next(steps)
    steps.close()
    assert state == ["changed", "base"]
