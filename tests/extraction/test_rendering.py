"""The one rendering, on the embedded model's own tokenizer."""

from datetime import date
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
        ("{% if add_generation_prompt %}go{% endif %}", "drops or changes the user's text"),
        ("{{ messages[0]['content'] }}", "writes nothing after the user's text"),
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
    with pytest.raises(ExtractionError, match=r"test, prompt 2 has 5 tokens; the model's window leaves room for 4"):
        ChatRenderer(tokenizer).check_lengths([[1] * 4, [1] * 5], 4, "test")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'] | no_such_filter }} go", "cannot be read: No filter named 'no_such_filter'"),
        ("{% if %}", "cannot be read"),
        ("{{ messages[0]['content'] }}{{ no.such.thing }} go", "fails on a user's message: UndefinedError"),
        ("{{ raise_exception('Only tools') }}", "fails on a user's message: TemplateError: Only tools"),
        ("{{ messages[0]['content'] + 1 }}", "fails on a user's message: TypeError"),
        ("{{ messages[0]['content'] | replace('  ', ' ') | replace('\n\n', '\n') }} go", "drops or changes the user's text"),
    ],
)
def test_a_template_that_fails_says_so(tokenizer: PreTrainedTokenizerBase, template: str, message: str) -> None:
    with pytest.raises(ExtractionError, match=message):
        ChatRenderer(tokenizer, template=template)


def test_a_key_that_the_template_does_not_read_is_refused_with_the_nearest(tokenizer: PreTrainedTokenizerBase) -> None:
    template = "{{ messages[0]['content'] }} {% if enable_thinking is defined and not enable_thinking %}now{% endif %}go"
    with pytest.raises(
        ExtractionError, match=r"does not read chat_template_kwargs.enable_thinkin, .*Did you mean enable_thinking"
    ):
        ChatRenderer(tokenizer, {"enable_thinkin": False}, template=template)


def test_a_set_without_a_default_asks_for_one(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = {"rag": "{{ messages[0]['content'] }} go", "tool_use": "x"}
    with pytest.raises(ExtractionError, match=r"has chat templates rag, tool_use and no default"):
        ChatRenderer(tokenizer)


def test_one_of_a_set_is_chosen_by_name(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = {"rag": "{{ messages[0]['content'] }} go", "tool_use": "x"}
    assert tokenizer.decode(ChatRenderer(tokenizer, template="rag").render("Hi")) == "Hi go"


def test_a_template_comes_from_a_file(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0]['content'] }} mine")
    assert tokenizer.decode(ChatRenderer(tokenizer, template=str(tmp_path / "mine.jinja")).render("Hi")) == "Hi mine"


def test_a_template_that_is_nothing_known_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ExtractionError, match=r"model.chat_template is 'chatlm'; expected plain, one of default, a file, or"):
        ChatRenderer(tokenizer, template="chatlm")


def test_a_base_model_is_asked_for_a_completion(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template, tokenizer.bos_token = None, "<|endoftext|>"
    assert tokenizer.decode(ChatRenderer(tokenizer, template="plain").render("Hi")) == "<|endoftext|>Question: Hi\nAnswer:"


def test_a_fixed_clock_is_part_of_what_is_rendered(tokenizer: PreTrainedTokenizerBase) -> None:
    template = "{{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }} go"
    found = {ChatRenderer(tokenizer, template=template, clock=date(2026, 1, day)).rendered_probe for day in (1, 2)}
    assert len(found) == 2
