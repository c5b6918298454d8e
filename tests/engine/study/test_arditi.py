"""The procedure as published, on tiny models and planted scores, against transformers' own hidden states."""

import pytest
import torch

from editing.projection import orthonormal_basis
from engine.errors import EngineError
from engine.study.arditi import choose, everywhere, filtered
from extraction.directions import Directions
from extraction.screening import smoothed_kl
from tests.tiny import tiny_model

PROMPTS = [[1, 5 + number, 9, 4] for number in range(12)]


def test_nothing_along_the_direction_is_left_at_any_layer() -> None:
    model = tiny_model("llama", torch.float32)
    direction_H = torch.randn(48, dtype=torch.float64)
    unit_H = (direction_H / direction_H.norm()).float()
    writers = [f"model.layers.{layer}.{name}" for layer in range(3) for name in ("self_attn.o_proj", "mlp.down_proj")]
    entered: list[torch.Tensor] = []
    with everywhere(model, writers, orthonormal_basis(direction_H[None])):
        handles = [
            block.input_layernorm.register_forward_pre_hook(lambda module, given: entered.append(given[0] @ unit_H))
            for block in model.model.layers
        ]
        with torch.no_grad():
            model(torch.tensor([PROMPTS[0]]))
    for handle in handles:
        handle.remove()
    assert len(entered) == 3
    assert max(float(part.abs().max()) for part in entered) < 1e-4


def test_the_smoothed_divergence_adds_a_millionth_to_each_probability() -> None:
    base, other = torch.randn(2, 3, 20, dtype=torch.float64)
    p, q = base.softmax(-1), other.softmax(-1)
    expected = [
        sum(a * torch.log((a + 1e-6) / (b + 1e-6)) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)
    ]
    assert torch.allclose(smoothed_kl(base.log_softmax(-1), other), torch.stack(expected))


def test_prompts_are_kept_by_the_side_of_the_limit_that_their_score_is_on() -> None:
    model = tiny_model("llama", torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor(PROMPTS)).logits[:, -1].double()
    odds = logits[:, 7] - torch.cat([logits[:, :7], logits[:, 8:]], dim=1).logsumexp(-1)
    limit = float(odds.median()) + 1e-6
    found = filtered(model, PROMPTS, PROMPTS, [7], limit)
    assert found.declined == [prompt for prompt, score in zip(PROMPTS, odds, strict=True) if score > limit]
    assert found.answered == [prompt for prompt, score in zip(PROMPTS, odds, strict=True) if score < limit]
    assert str(found).startswith(f"{len(found.declined)} of 12 declined")


def test_a_model_that_refuses_nothing_is_refused_with_its_scores() -> None:
    with pytest.raises(EngineError, match=r"0 of 12 declined prompts pass the filter as published: refusal scores are -\d"):
        filtered(tiny_model("llama", torch.float32), PROMPTS, PROMPTS, [7], 0.0)


def test_of_what_passes_the_lowest_bypass_is_chosen() -> None:
    means = torch.randn(2, 4, 8, dtype=torch.float64)
    directions = {"last": Directions(means[0], means[1], 3)}
    rows = [
        {"position": "last", "layer": layer, "bypass": bypass, "induce": 1.0, "kl": 0.01, "passes": passes}
        for layer, bypass, passes in ((1, -5.0, False), (2, -2.0, True), (3, -1.0, True))
    ]
    chosen = choose(rows, directions)
    assert chosen is not None
    assert chosen.layer == 2
    assert choose(rows[:1], directions) is None
