"""The screen's numbers against dense formulas, and the tokens they are read at."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logit, rel_entr, softmax

from extraction.errors import ExtractionError
from extraction.screening import (
    LOG_ODDS_LIMIT,
    ablation_scores,
    find_refusal_tokens,
    forced_prefix,
    induction_scores,
    kl_divergence,
    make_panel,
    refusal_log_odds,
)
from tests.tiny import tiny_model

DECLINED, ANSWERED = [[1, 5, 9, 4], [1, 8, 2, 11, 30], [1, 3]], [[1, 7, 3], [1, 40, 41, 42, 43, 44]]


def test_log_odds_equal_the_logit_of_the_summed_probability() -> None:
    logits = torch.randn(5, 101, generator=torch.Generator().manual_seed(0)) * 3
    probability = softmax(logits.double().numpy(), axis=1)[:, [4, 50]].sum(1)
    expected = torch.tensor([math.log(p / (1 - p)) for p in probability], dtype=torch.float64)
    assert torch.allclose(refusal_log_odds(logits, [4, 50]), expected, atol=1e-9)


def test_log_odds_stay_within_the_limit_and_take_minus_infinity() -> None:
    logits = torch.full((3, 4), -math.inf)
    logits[0, 1], logits[1, 2], logits[2, :2] = 0.0, 0.0, 0.0
    assert refusal_log_odds(logits, [1]).tolist() == [LOG_ODDS_LIMIT, -LOG_ODDS_LIMIT, 0.0]


def test_kl_equals_the_dense_sum_and_leaves_out_what_the_base_never_says() -> None:
    base, other = torch.randn(2, 4, 101, generator=torch.Generator().manual_seed(1)) * 2
    base[:, 7] = other[:, 7] = -math.inf  # a token that the head masks: p = q = 0
    base[0, 9] = -math.inf  # p = 0 < q
    expected = rel_entr(softmax(base.double().numpy(), axis=1), softmax(other.double().numpy(), axis=1)).sum(1)
    found = kl_divergence(base.double().log_softmax(-1), other)
    print(f"largest difference {float((found - torch.tensor(expected)).abs().max()):.1e}")
    assert torch.allclose(found, torch.tensor(expected), atol=1e-9)
    other[1, 3] = -math.inf  # q = 0 < p
    assert kl_divergence(base.double().log_softmax(-1), other)[1] == math.inf


def next_probabilities(model: torch.nn.Module, prompts: list[list[int]]) -> Any:
    """Each prompt alone through transformers, (N, V) float64."""
    with torch.inference_mode():
        logits = [model(torch.tensor([prompt]), use_cache=False).logits[0, -1].double().numpy() for prompt in prompts]
    return softmax(np.stack(logits), axis=1)


def test_a_panel_gives_each_prompt_the_number_that_it_gets_alone() -> None:
    base, changed = tiny_model("llama", torch.float32), tiny_model("llama", torch.float32)
    with torch.no_grad():
        changed.base_model.layers[1].mlp.down_proj.weight.mul_(0.5)
    panel = make_panel(base, DECLINED, ANSWERED, batch_tokens=12)
    scores = ablation_scores(changed, panel, [6, 31])
    declined, answered = (next_probabilities(changed, prompts)[:, [6, 31]].sum(1) for prompts in (DECLINED, ANSWERED))
    divergence = rel_entr(next_probabilities(base, ANSWERED), next_probabilities(changed, ANSWERED)).sum(1)
    assert np.allclose(scores.bypass_N.numpy(), logit(declined), atol=1e-4)
    assert np.allclose(scores.kl_N.numpy(), divergence, atol=1e-5)
    assert float(scores.kl_N.min()) > 1e-4
    assert np.allclose(induction_scores(changed, panel, [6, 31]).numpy(), logit(answered), atol=1e-4)
    assert float(ablation_scores(base, panel, [6]).kl_N.abs().max()) < 1e-5


def force(model: torch.nn.Module, tokens: list[int]) -> None:
    """Make the model begin every response with these tokens, as a template's channel mark does."""

    def hook(module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        last = kwargs["input_ids"][:, -output.logits.shape[1] :]
        for before, token in zip([4, *tokens], tokens, strict=False):  # 4 ends every prompt here
            output.logits[last == before] = torch.nn.functional.one_hot(torch.tensor(token), 101).float() * 60
        return output

    model.register_forward_hook(hook, with_kwargs=True)


def test_numbers_are_read_after_tokens_that_every_response_begins_with() -> None:
    prompts = [[1, 5, 9, 4], [1, 8, 2, 11, 4], [1, 50, 4]]
    model = tiny_model("llama", torch.float32)
    assert forced_prefix(model, prompts) == []
    force(model, [90, 91])
    assert forced_prefix(model, prompts) == [90, 91]


def test_refusal_tokens_are_those_that_refusals_begin_with_more_than_answers() -> None:
    found = find_refusal_tokens([57] * 9 + [2683] * 3 + [11], [504] * 20 + [57] * 2 + [2683] * 8)
    assert found.token_ids == [57]  # 2683 begins more answers, 11 one refusal alone
    assert found.share_of_refusals == pytest.approx(9 / 13)
    assert found.share_of_answers == pytest.approx(2 / 30)


def test_a_model_that_does_not_decline_or_shows_it_later_is_refused() -> None:
    with pytest.raises(ExtractionError, match=r"declined 1 of the screening prompts.*--exhaustive"):
        find_refusal_tokens([57], [1, 2])
    with pytest.raises(ExtractionError, match="does not tell this model's refusals from its answers"):
        find_refusal_tokens([57] * 5, [57] * 5)


def test_the_base_diverges_from_itself_by_nothing_in_16_bits() -> None:
    model, generator = tiny_model("llama", torch.bfloat16), torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 40, (40,), generator=generator).tolist()
    prompts = [torch.randint(1, 100, (length,), generator=generator).tolist() for length in lengths]
    panel = make_panel(model, prompts[:20], prompts[20:])
    divergence = float(ablation_scores(model, panel, [4]).kl_N.abs().max())
    print(f"largest divergence {divergence:.1e}")  # 2e-5 where the base was read in batches of its own
    assert divergence < 2e-6
