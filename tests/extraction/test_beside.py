"""Interventions beside each other against one model for each, whose weights were exchanged by hand."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from extraction.beside import Taken, additions, induction_beside, removals, scores_beside
from extraction.screening import Scores, ablation_scores, induction_scores, make_panel
from tests.tiny import BLOCKS, HIDDEN, tiny_model

DECLINED, ANSWERED = [[1, 5, 9, 4], [1, 8, 2, 11, 30], [1, 3]], [[1, 7, 3], [1, 40, 41, 42, 43, 44]]
TOKENS = [4, 50]
WRITERS = [f"model.layers.{n}.{name}" for n in range(BLOCKS) for name in ("self_attn.o_proj", "mlp.down_proj")]
ALPHAS = (1.0, 0.5, 2.0)


def units(count: int) -> torch.Tensor:
    rows = torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


def taken(name: str = "llama biased") -> tuple[torch.nn.Module, dict[str, Taken]]:
    """A model, and for the base and three directions what each writer loses."""
    read_SHK = torch.stack([torch.zeros(HIDDEN, dtype=torch.float64), *units(3)])[:, :, None]
    write_SHK = read_SHK * torch.tensor([0.0, *ALPHAS], dtype=torch.float64)[:, None, None]
    return tiny_model(name, torch.float32), dict.fromkeys(WRITERS, Taken(read_SHK, write_SHK))


def edited(slot: int) -> torch.nn.Module:
    """The model of one slot: its writers' weights exchanged, biases as they were."""
    model, v_H = tiny_model("llama biased", torch.float32), units(3)[slot]
    with torch.no_grad():
        for name in WRITERS:
            weight = model.get_submodule(name).weight
            weight -= (ALPHAS[slot] * torch.outer(v_H, v_H @ weight.double())).to(weight.dtype)
    return model


def both(slot: int) -> tuple[Scores, Scores]:
    """A slot's scores beside the others, and its edited model's."""
    model, own = taken()
    panel = make_panel(model, DECLINED, ANSWERED)
    with removals(model, own):
        found = scores_beside(model, panel, TOKENS, 4)[slot]
    return found, ablation_scores(edited(slot), panel, TOKENS)


@pytest.mark.parametrize("slot", range(3))
def test_a_slots_bypass_is_its_edited_models(slot: int) -> None:
    found, alone = both(slot)
    assert torch.allclose(found.bypass_N, alone.bypass_N, atol=1e-5)


@pytest.mark.parametrize("slot", range(3))
def test_a_slots_divergence_is_its_edited_models(slot: int) -> None:
    found, alone = both(slot)
    assert torch.allclose(found.kl_N, alone.kl_N, atol=1e-6)


def test_the_base_beside_edits_does_not_diverge_from_itself() -> None:
    model, own = taken()
    panel = make_panel(model, DECLINED, ANSWERED)
    zeros = Taken(torch.zeros(3, HIDDEN, 1), torch.zeros(3, HIDDEN, 1))
    with removals(model, dict.fromkeys(own, zeros)):
        found = scores_beside(model, panel, TOKENS, 3)
    assert all(scores.kl_N.abs().max() < 1e-12 for scores in found)


def test_nothing_stays_behind() -> None:
    model, own = taken()
    tokens = torch.tensor([[1, 5, 9, 4]])
    before = model(tokens).logits
    with removals(model, own), additions(model, [0, 1], torch.ones(2, HIDDEN)):
        pass
    assert torch.equal(model(tokens).logits, before)


@contextmanager
def added(model: torch.nn.Module, layer: int, vector_H: torch.Tensor) -> Iterator[None]:
    """The vector added by hand to what the block before `layer` puts out, or to what is embedded."""
    blocks = model.base_model.layers
    module = blocks[layer - 1] if layer else model.get_input_embeddings()
    handle = module.register_forward_hook(lambda _, args, output: output + vector_H)
    yield
    handle.remove()


@pytest.mark.parametrize(("slot", "layer"), enumerate([0, 2, BLOCKS, 2]))
def test_a_slots_addition_is_what_it_is_alone(slot: int, layer: int) -> None:
    model = tiny_model("llama", torch.float32)
    panel = make_panel(model, DECLINED, ANSWERED)
    vectors_SH = units(4).float() * 3
    with additions(model, [0, 2, BLOCKS, 2], vectors_SH):
        found_SN = induction_beside(model, panel, TOKENS, 4)
    with added(model, layer, vectors_SH[slot]):
        expected_N = induction_scores(model, panel, TOKENS)
    assert torch.allclose(found_SN[slot], expected_N, atol=1e-5)


def test_a_slot_without_a_layer_gets_nothing() -> None:
    model = tiny_model("llama", torch.float32)
    panel = make_panel(model, DECLINED, ANSWERED)
    expected_N = induction_scores(model, panel, TOKENS)
    with additions(model, [None, 1], units(2).float()):
        found_SN = induction_beside(model, panel, TOKENS, 2)
    assert torch.allclose(found_SN[0], expected_N, atol=1e-6)
