"""The one rendering, on the embedded model's own tokenizer."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from extraction.errors import ExtractionError
from extraction.rendering import ChatRenderer


@pytest.fixture
def tokenizer(smollm2_dir: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2_dir)


def test_ids_are_those_of_the_template_text_without_added_specials(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    text += "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"
    ids = ChatRenderer(tokenizer).render("Hi there")
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 3


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        ("{% if add_generation_prompt %}go{% endif %}", "drops the user's text"),
        ("{{ messages[0]['content'] }}", "no generation prompt"),
        ("<|im_start|><|im_start|>{{ messages[0]['content'] }}{% if add_generation_prompt %}go{% endif %}", "two BOS"),
    ],
)
def test_a_template_that_cannot_serve_is_refused(tokenizer: PreTrainedTokenizerBase, template: str | None, message: str) -> None:
    tokenizer.chat_template = template
    tokenizer.bos_token = "<|im_start|>"
    with pytest.raises(ExtractionError, match=message):
        ChatRenderer(tokenizer)


def test_template_kwargs_reach_the_template(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ date }} {{ messages[0]['content'] }}{% if add_generation_prompt %} go{% endif %}"
    renderer = ChatRenderer(tokenizer, {"date": "26 Jul 2024"})
    assert tokenizer.decode(renderer.render("Hi")) == "26 Jul 2024 Hi go"


def test_a_prompt_longer_than_the_window_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ExtractionError, match=r"test, prompt 1 has 5 tokens; the model's window leaves room for 4"):
        ChatRenderer(tokenizer).check_lengths([[1] * 4, [1] * 5], 4, "test")
