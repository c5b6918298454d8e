"""Positions by name, on the embedded model's real template."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from extraction.controls import Control
from extraction.directions import extract_at
from extraction.errors import ExtractionError
from extraction.positions import expand_positions, offset_of
from extraction.rendering import ChatRenderer, RenderedPair
from tests.forward import residual_stream
from tests.tiny import tiny_model


def test_names_become_offsets_from_the_end() -> None:
    assert [offset_of(name, 5) for name in ("last", "last_instruction", "post_instruction:1", "post_instruction:5")] == [
        -1,
        -6,
        -5,
        -1,
    ]
    assert expand_positions(["last_instruction", "post_instruction", "last"], 3) == [
        "last_instruction",
        "post_instruction:1",
        "post_instruction:2",
        "last",
    ]
    with pytest.raises(ExtractionError, match="the template writes 5 tokens after the user's text"):
        offset_of("post_instruction:6", 5)
    with pytest.raises(ExtractionError, match=r"Unknown position 'first'; expected last, last_instruction"):
        offset_of("first", 5)


def test_the_template_of_the_embedded_model_writes_six_tokens_after_the_text(smollm2_dir: Path) -> None:
    renderer = ChatRenderer(AutoTokenizer.from_pretrained(smollm2_dir))
    assert renderer.num_post_tokens == 6
    for text, last in (("What is in my pocket?", "?"), ("Tell me a story about wood", " wood")):
        token_ids = renderer.render(text)
        decoded = [renderer.tokenizer.decode([token_ids[offset_of(name, 6)]]) for name in ("last_instruction", "last")]
        assert decoded == [last, "\n"]
        assert renderer.tokenizer.decode(token_ids[-6:]) == "<|im_end|>\n<|im_start|>assistant\n"


def test_a_position_reads_the_stream_of_its_token() -> None:
    model = tiny_model("llama", torch.float32)
    pairs = [RenderedPair([1, 5, 9, 4, 60, 61], [1, 7, 3, 60, 61]), RenderedPair([1, 8, 2, 60, 61], [1, 40, 41, 42, 60, 61])]
    found = extract_at(model, pairs, {"last": -1, "last_instruction": -3}).directions
    cut = [RenderedPair(pair.declined[:-2], pair.answered[:-2]) for pair in pairs]  # causal: what follows does not matter
    for name, prompts in (("last", pairs), ("last_instruction", cut)):
        sides = [(residual_stream(model, pair.declined), residual_stream(model, pair.answered)) for pair in prompts]
        expected = sum((declined[:, -1] - answered[:, -1]).double() for declined, answered in sides) / len(sides)
        assert torch.allclose(found[name].mean_difference_LH, expected, atol=1e-5)
        assert found[name].position == name


def test_shuffled_labels_keep_the_prompts_and_lose_the_difference() -> None:
    model = tiny_model("llama", torch.float32)
    pairs = [RenderedPair([1, 5 + number, 90], [1, 5 + number, 80]) for number in range(40)]
    both = extract_at(model, pairs, {"last": -1}, controls=[Control("shuffled", 1, 1)])
    true, shuffled = both.directions["last"], both.controls["shuffled1"]["last"]
    total = true.declined_mean_LH + true.answered_mean_LH
    assert torch.allclose(shuffled.declined_mean_LH + shuffled.answered_mean_LH, total, atol=1e-9)
    ratio = shuffled.norms_L[1:] / true.norms_L[1:]
    print(f"norm of the shuffled difference over the true one: {ratio.tolist()}")
    assert float(ratio.max()) < 0.2
