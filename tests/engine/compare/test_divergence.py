"""The divergence from sampled tokens, against the exact KL of two known distributions."""

import numpy as np
import pytest

from engine.compare.divergence import coefficient, divergence

VOCABULARY = 50


def sampled(distance: float, tokens: int = 4000) -> tuple[list[float], list[float], float]:
    """Log-probabilities under both of tokens drawn from the first, and KL(first || second) summed exactly."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=VOCABULARY)
    first = np.exp(logits) / np.exp(logits).sum()
    moved = logits + distance * generator.normal(size=VOCABULARY)
    second = np.exp(moved) / np.exp(moved).sum()
    drawn = generator.choice(VOCABULARY, tokens, p=first)
    return list(np.log(first[drawn])), list(np.log(second[drawn])), float((first * np.log(first / second)).sum())


@pytest.mark.parametrize("distance", [0.03, 0.3, 1.0, 3.0])
def test_sampled_tokens_give_the_exact_divergence(distance: float) -> None:
    base, own, exact = sampled(distance)
    assert divergence(base, own, coefficient([base], [own]))["per_token"] == pytest.approx(exact, rel=0.1)


def test_equal_models_have_none() -> None:
    base, _, _ = sampled(1.0)
    assert divergence(base, base, coefficient([base], [base]))["per_response"] == 0


def test_close_models_take_the_whole_control_variate() -> None:
    base, own, _ = sampled(0.03)
    assert coefficient([base], [own]) > 0.9


def test_a_responses_divergence_is_the_sum_of_its_tokens() -> None:
    base, own, _ = sampled(0.3, tokens=20)
    found = divergence(base, own, 1.0)
    assert found["per_response"] == pytest.approx(20 * found["per_token"])
