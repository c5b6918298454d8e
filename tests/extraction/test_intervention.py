"""Additions and ablations by hooks against what they stand for."""

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.plan import plan_edit
from editing.projection import orthonormal_basis
from extraction.errors import ExtractionError
from extraction.generate import greedy
from extraction.intervention import ablation, addition, stream_ablation
from tests.dense import without
from tests.tiny import BLOCKS, HIDDEN, save_tiny, tiny_model

PROMPTS = [[1, 5, 9, 4], [1, 8, 2 + 9, 11, 30], [1, 40], [1, 41, 42, 43, 44, 45, 46]]


def streams(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """What each block's attention norm and the final norm are given, (L+1, T, H): the stream behind any hook on a block."""
    seen: list[torch.Tensor] = []
    norms = [*(block.input_layernorm for block in model.base_model.layers), model.base_model.norm]
    handles = [norm.register_forward_pre_hook(lambda module, args: seen.append(args[0][0].double())) for norm in norms]
    with torch.inference_mode():
        model(tokens)
    for handle in handles:
        handle.remove()
    return torch.stack(seen)


@pytest.mark.parametrize("layer", range(BLOCKS + 1))
def test_an_addition_shifts_the_stream_at_its_layer_and_not_before(layer: int) -> None:
    model = tiny_model("llama", torch.float32)
    tokens, vector = torch.tensor(PROMPTS[:1]), torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0))
    before = streams(model, tokens)
    with addition(model, layer, vector):
        after = streams(model, tokens)
    assert torch.equal(after[:layer], before[:layer])
    assert torch.allclose(after[layer], before[layer] + vector.double(), atol=1e-5)
    assert torch.equal(streams(model, tokens), before)


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_ablated_writes_equal_folded_weights(alpha: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = save_tiny("llama", tmp_path_factory.mktemp("tiny"), dtype=torch.float32)
    plan = plan_edit(open_checkpoint(directory))
    directions = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(1))
    basis = orthonormal_basis(directions)
    hooked, folded = tiny_model("llama", torch.float32), tiny_model("llama", torch.float32)
    with torch.no_grad():
        for tensor in plan.edited:
            weight = folded.get_parameter(tensor.name)
            weight.copy_(without(weight, directions, alpha))
    tokens = torch.tensor([PROMPTS[3]])
    with torch.inference_mode():
        plain = hooked(tokens).logits
        with ablation(hooked, [tensor.name.removesuffix(".weight") for tensor in plan.edited], basis, alpha):
            ablated = hooked(tokens).logits
        difference = float((ablated - folded(tokens).logits).abs().max())
    moved = float((ablated - plain).abs().max())
    print(f"alpha {alpha}: largest difference {difference:.1e}; the ablation moves logits by {moved:.2f}")
    assert difference < 1e-4
    assert moved > 0.1
    assert torch.equal(hooked(tokens).logits, plain)


def test_padded_greedy_generation_equals_one_by_one() -> None:
    model = tiny_model("llama", torch.float32)
    model.generation_config.eos_token_id = 2
    together, alone = greedy(model, PROMPTS, 12), [greedy(model, [prompt], 12)[0] for prompt in PROMPTS]
    assert together == alone == greedy(model, PROMPTS, 12, batch_size=3)
    assert all(2 not in response and len(response) <= 12 for response in together)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("rank", [1, 3])
def test_the_stream_that_enters_a_block_loses_its_share_of_the_projection(alpha: float, rank: int) -> None:
    model = tiny_model("llama", torch.float32)
    basis = orthonormal_basis(torch.randn(rank, HIDDEN, generator=torch.Generator().manual_seed(2)))
    tokens = torch.tensor([PROMPTS[3]])
    plain = streams(model, tokens)
    with stream_ablation(model, basis, alpha, layers=[1]):
        one = streams(model, tokens)
    assert torch.equal(one[0], plain[0])
    expected = plain[1] - alpha * plain[1] @ basis @ basis.T
    print(f"alpha {alpha}, rank {rank}: largest difference {float((one[1] - expected).abs().max()):.1e}")
    assert torch.allclose(one[1], expected, atol=1e-4)
    with stream_ablation(model, basis, 1.0):
        left = float((streams(model, tokens)[:-1] @ basis).abs().max())  # no block reads what the last one puts out
    assert left < 1e-4
    assert torch.equal(streams(model, tokens), plain)


def test_ablating_every_write_and_the_embedding_leaves_nothing_at_any_layer() -> None:
    model = tiny_model("llama", torch.float32)
    basis = orthonormal_basis(torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(3)))
    tokens = torch.tensor([PROMPTS[1]])
    writers = [f"model.layers.{layer}.{name}" for layer in range(BLOCKS) for name in ("self_attn.o_proj", "mlp.down_proj")]
    left = {}
    for label, names in (("all", ["model.embed_tokens", *writers]), ("blocks alone", writers)):
        with ablation(model, names, basis):
            left[label] = float((streams(model, tokens) @ basis).abs().max())
    print(left)
    assert left["all"] < 1e-4 < left["blocks alone"]


def test_generation_under_a_hook_in_padded_batches_equals_one_by_one() -> None:
    model = tiny_model("llama", torch.float32)
    model.generation_config.eos_token_id = 2
    basis = orthonormal_basis(torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(4)))
    plain = greedy(model, PROMPTS, 12)
    with stream_ablation(model, basis):
        together, one_by_one = greedy(model, PROMPTS, 12), [greedy(model, [prompt], 12)[0] for prompt in PROMPTS]
    assert together == one_by_one
    assert together != plain
    assert greedy(model, PROMPTS, 12) == plain


def test_directions_of_another_width_are_refused() -> None:
    basis = orthonormal_basis(torch.randn(1, HIDDEN + 1))
    with (
        pytest.raises(ExtractionError, match="width 49; this model's hidden size is 48"),
        stream_ablation(tiny_model("llama"), basis),
    ):
        pass


def test_an_output_bias_stays_unless_it_is_edited_too() -> None:
    model = tiny_model("gpt2", torch.float32)
    name = "transformer.h.1.mlp.c_proj"
    basis = orthonormal_basis(torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(5)))
    seen: list[torch.Tensor] = []
    module = model.get_submodule(name)
    bias = float((module.bias.double() @ basis).detach())
    for biases, expected in ((False, bias), (True, 0.0)):
        with torch.inference_mode(), ablation(model, [name], basis, biases=biases):
            handle = module.register_forward_hook(lambda *given: seen.append(given[2][0].double() @ basis))
            model(torch.tensor([PROMPTS[3]]))
            handle.remove()
        print(f"biases {biases}: along the direction {seen[-1].mean():.4f}, the bias has {bias:.4f}")
        assert torch.allclose(seen[-1], torch.full_like(seen[-1], expected), atol=1e-4)
    assert abs(bias) > 0.01
