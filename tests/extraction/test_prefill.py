"""Batched next-token logits against one prompt at a time."""

import pytest
import torch

from extraction.errors import ExtractionError
from extraction.prefill import Prefill, common_prefix
from extraction.screening import next_token_logprobs
from tests.tiny import EDITOR_CONFIGS, tiny_model

PREFIX = [1, 17, 23, 42]
PROMPTS = [[*PREFIX, *range(5, 5 + length), 9] for length in (1, 2, 2, 5, 7, 11, 3, 16)]


def one_by_one(model: torch.nn.Module, prompts: list[list[int]]) -> torch.Tensor:
    with torch.inference_mode():
        rows = [model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1] for prompt in prompts]
    return torch.stack(rows).float().log_softmax(-1)


@pytest.mark.parametrize("family", sorted(EDITOR_CONFIGS))
def test_batches_equal_one_by_one_in_every_family(family: str) -> None:
    model = tiny_model(family, torch.float32)
    found = next_token_logprobs(model, Prefill(PROMPTS, batch_tokens=40))
    difference = float((found - one_by_one(model, PROMPTS)).abs().max())
    print(f"{family}: largest difference of a log-probability {difference:.1e}")
    assert difference < 2e-5


@pytest.mark.parametrize("batch_tokens", [1, 24, 4096])
def test_batch_size_and_order_do_not_matter(batch_tokens: int) -> None:
    model = tiny_model("llama", torch.float32)
    expected = one_by_one(model, PROMPTS)
    assert float((next_token_logprobs(model, Prefill(PROMPTS, batch_tokens=batch_tokens)) - expected).abs().max()) < 2e-5
    turned = next_token_logprobs(model, Prefill(PROMPTS[::-1], batch_tokens=batch_tokens))
    assert float((turned.flip(0) - expected).abs().max()) < 2e-5


def test_weights_may_change_between_passes_and_nothing_of_the_old_ones_stays() -> None:
    model, prefill = tiny_model("llama", torch.float32), Prefill(PROMPTS)
    before = next_token_logprobs(model, prefill)
    with torch.no_grad():
        model.base_model.layers[0].self_attn.v_proj.weight.mul_(2)
    after = next_token_logprobs(model, prefill)
    assert float((after - before).abs().max()) > 0.01
    assert float((after - one_by_one(model, PROMPTS)).abs().max()) < 2e-5


def test_a_prefix_leaves_each_prompt_a_token() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 3, 4]]) == 2
    assert common_prefix([[1, 2], [1, 2]]) == 1
    assert common_prefix([[5, 2], [1, 2]]) == 0
    model = tiny_model("llama", torch.float32)
    for prompts in ([[1, 2, 3], [1, 2, 3, 4]], [[5, 2], [1, 2]], [[1, 2, 3]]):
        assert torch.allclose(next_token_logprobs(model, Prefill(prompts)), one_by_one(model, prompts), atol=2e-5)


def test_no_prompts_or_an_empty_one_is_refused() -> None:
    for prompts in ([], [[1, 2], []]):
        with pytest.raises(ExtractionError, match="at least one prompt, each with tokens"):
            Prefill(prompts)
