"""Hooked directions against transformers' own hidden states."""

import gc
import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from extraction.directions import Directions, extract_directions, group_means, mean_residual, unit_directions
from extraction.errors import ExtractionError
from extraction.files import load_directions, read_metadata, save_directions
from extraction.hooks import ResidualCapture, decoder_blocks
from extraction.rendering import RenderedPair
from tests.forward import residual_stream
from tests.tiny import EDITOR_CONFIGS, tiny_model

PAIRS = [RenderedPair([1, 5, 9, 4], [1, 7, 3]), RenderedPair([1, 8, 2, 11, 30], [1, 40, 41, 42, 43, 44])]


def reference_residual(model: torch.nn.Module, token_ids: list[int]) -> torch.Tensor:
    return residual_stream(model, token_ids)[:, -1].double()


@pytest.mark.parametrize("family", sorted(EDITOR_CONFIGS))
def test_directions_equal_output_hidden_states(family: str) -> None:
    model = tiny_model(family, torch.float32)
    expected = sum(reference_residual(model, p.declined) - reference_residual(model, p.answered) for p in PAIRS) / len(PAIRS)
    found = extract_directions(model, PAIRS).mean_difference_LH
    difference = float((found - expected).abs().max())
    print(f"{family}: largest difference {difference:.1e}")
    assert found.shape == (4, 48)
    assert found.dtype == torch.float64
    assert difference < 5e-6  # the same sums in another order


def test_layer_l_is_before_the_final_norm() -> None:
    model = tiny_model("llama", torch.float32)
    with torch.no_grad():
        normed = model(torch.tensor([PAIRS[0].declined]), output_hidden_states=True).hidden_states[-1][0, -1]
    found = mean_residual(model, [PAIRS[0].declined])[-1]
    assert not torch.allclose(found.float(), normed, atol=1e-2)
    torch.testing.assert_close(model.base_model.norm(found.float()), normed)


def test_hooks_are_gone_afterwards_and_the_head_never_ran() -> None:
    model = tiny_model("llama")
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("lm_head ran"))
    extract_directions(model, PAIRS)
    assert all(not block._forward_pre_hooks and not block._forward_hooks for block in decoder_blocks(model))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_prompts() -> None:
    alive: list[int] = []

    kinds: dict[type, bool] = {}  # torch's isinstance takes a microsecond, and there are millions of objects

    def count(done: int) -> None:
        of_types = Counter(map(type, gc.get_objects()))
        kinds.update({kind: issubclass(kind, torch.Tensor) for kind in of_types.keys() - kinds.keys()})
        alive.append(sum(number for kind, number in of_types.items() if kinds[kind]))

    mean_residual(tiny_model("llama"), ([1, 5, number % 90 + 3] for number in range(14)), count)
    assert len(alive) == 14
    assert max(alive[5:]) <= max(alive[:5])


def test_places_for_other_sequences_than_the_pass_has_are_refused() -> None:
    model = tiny_model("llama")
    with pytest.raises(ExtractionError, match=r"for 1 sequences; the pass has 2"), ResidualCapture(model) as capture:
        capture.at(torch.tensor([[1]]))
        model.base_model(torch.tensor([[1, 2], [1, 3]]))


LENGTHS = (1, 2, 2, 5, 7, 11, 3, 16, 7)
PROMPTS = [[1, 17, 23, *range(5, 5 + length), 9, 4] for length in LENGTHS]


def reference_means(model: torch.nn.Module, offsets: list[int]) -> torch.Tensor:
    """Every prompt alone, without a cache: (P, L+1, H)."""
    rows = [residual_stream(model, prompt)[:, offsets].double().transpose(0, 1) for prompt in PROMPTS]
    return torch.stack(rows).mean(dim=0)


@pytest.mark.parametrize("batch_tokens", [1, 24, 4096])
@pytest.mark.parametrize("family", sorted(EDITOR_CONFIGS))
def test_batches_equal_one_by_one_in_every_family_and_order(family: str, batch_tokens: int) -> None:
    offsets = [-1, -3]
    for dtype, limit, attention in (
        (torch.float32, 1e-9, "sdpa"),
        (torch.bfloat16, 1e-4, "sdpa"),
        (torch.bfloat16, 1e-4, "eager"),
    ):
        model = tiny_model(family, dtype)
        if attention == "eager":
            model.set_attn_implementation("eager")
        expected = reference_means(model, offsets)
        for prompts in (PROMPTS, PROMPTS[::-1]):
            found = group_means(model, prompts, itertools.repeat((0,)), offsets, batch_tokens=batch_tokens)[0]
            cosine = torch.nn.functional.cosine_similarity(found, expected, dim=-1).min()
            print(f"{family}, {dtype}, {attention}: 1 - cosine {1 - float(cosine):.1e}")
            assert 1 - cosine <= limit


def test_a_position_before_a_prompts_start_is_refused() -> None:
    with pytest.raises(ExtractionError, match="A prompt of 2 tokens has no position -3; expected at least 3"):
        group_means(tiny_model("llama"), [[1, 2], [1, 2, 3, 4]], itertools.repeat((0,)), [-3])


def test_a_model_without_known_blocks_is_named() -> None:
    model = tiny_model("llama")
    model.base_model.stack = model.base_model.layers
    del model.base_model.layers
    with pytest.raises(ExtractionError, match="Model type 'llama': found no list of 3 decoder blocks"):
        decoder_blocks(model)


def test_unit_directions_refuse_layers_that_are_not_there_or_have_none() -> None:
    directions = Directions(torch.tensor([[1.0, 0.0], [3.0, 4.0]]).double(), torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double(), 2)
    torch.testing.assert_close(unit_directions(directions, [1]), torch.tensor([[0.6, 0.8]]).double())
    with pytest.raises(ExtractionError, match="Layer 2 is out of range: the model has layers 0 to 1"):
        unit_directions(directions, [2])
    with pytest.raises(ExtractionError, match="Layer 0 has no direction"):
        unit_directions(directions, [0])
    with pytest.raises(ExtractionError, match="named more than once"):
        unit_directions(directions, [1, 1])


def test_direction_files_round_trip_with_their_convention(tmp_path: Path) -> None:
    directions = extract_directions(tiny_model("llama"), PAIRS)
    save_directions(tmp_path / "d.safetensors", directions, {"model": "tiny"})
    loaded = load_directions(tmp_path / "d.safetensors")
    assert torch.equal(loaded.mean_difference_LH, directions.mean_difference_LH)
    assert loaded.num_pairs == 2
    metadata = read_metadata(tmp_path / "d.safetensors")
    assert (metadata["convention"], metadata["position"], metadata["model"]) == ("resid_pre", "last", "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["d.safetensors"]


def test_other_files_are_no_direction_files(tmp_path: Path, llama_dir: Path) -> None:
    with pytest.raises(ExtractionError, match="holds no directions"):
        load_directions(llama_dir / "model.safetensors")
    (tmp_path / "d.safetensors").write_bytes(b"x")
    with pytest.raises(ExtractionError, match="not a readable direction file"):
        load_directions(tmp_path / "d.safetensors")


WHOLE = torch.ones(4, 48, dtype=torch.float64)


@pytest.mark.parametrize(
    ("tensors", "num_pairs", "message"),
    [
        ({}, "2", "declined_mean is nothing, expected"),
        ({"declined_mean": WHOLE}, "2", "answered_mean is nothing, expected"),
        ({"declined_mean": WHOLE, "answered_mean": torch.ones(4, 48)}, "2", "answered_mean is (4, 48) torch.float32"),
        ({"declined_mean": WHOLE, "answered_mean": torch.ones(3, 48).double()}, "2", "answered_mean is (3, 48)"),
        ({"declined_mean": WHOLE[0].clone(), "answered_mean": WHOLE}, "2", "declined_mean is (48,)"),
        ({"declined_mean": WHOLE, "answered_mean": WHOLE * float("nan")}, "2", "answered_mean holds NaN or infinity"),
        ({"declined_mean": WHOLE, "answered_mean": WHOLE + 1, "estimated": WHOLE[:2].clone()}, "2", "estimated is (2, 48)"),
        ({"declined_mean": WHOLE, "answered_mean": WHOLE + 1}, "two", "num_pairs is 'two', expected a number"),
        ({"declined_mean": WHOLE, "answered_mean": WHOLE + 1}, "9" * 5000, "num_pairs is '999"),
    ],
)
def test_a_damaged_direction_file_is_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor], num_pairs: str, message: str
) -> None:
    metadata = {"format": "refusal-directions/1", "convention": "resid_pre", "num_pairs": num_pairs}
    save_file(tensors, tmp_path / "d.safetensors", metadata)
    with pytest.raises(ExtractionError) as caught:
        load_directions(tmp_path / "d.safetensors")
    assert message in str(caught.value)
