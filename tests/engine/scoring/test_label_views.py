"""The kept views of the labels are what SmolLM2 makes of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.inference.views import view_tokens
from engine.scoring.label_views import views_of
from engine.scoring.labels import BLIND, load_labels
from extraction.rendering import ChatRenderer
from judging.view import VIEWED_TOKENS, BaseView, kept_views

DIGITS = 2e-3  # the kept numbers have four digits; batches of other sizes move the last


@pytest.fixture(scope="module")
def lines(smollm2_dir: Path) -> list[dict[str, Any]]:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    renderer = ChatRenderer(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32).eval()
    texts = [(row.item.prompt, row.item.response) for row in load_labels(BLIND).rows[:8:2]]
    starts = [tokenizer.encode(response, add_special_tokens=False)[:VIEWED_TOKENS] for _, response in texts]
    prompts = [renderer.render(prompt) for prompt, _ in texts]
    with torch.inference_mode():
        return views_of(model, texts, prompts, starts, view_tokens(tokenizer, renderer.render))


@pytest.mark.parametrize("name", ["given", "otherwise", "refusing"])
def test_a_kept_view_is_what_the_reader_makes_of_the_text(name: str, lines: list[dict[str, Any]]) -> None:
    kept = [getattr(kept_views()[line["key"]], name) for line in lines]
    assert [line[name] for line in lines] == pytest.approx(kept, abs=DIGITS)


def test_labels_come_with_their_views() -> None:
    first = load_labels(BLIND).rows[0].item
    assert isinstance(first.view, BaseView)
