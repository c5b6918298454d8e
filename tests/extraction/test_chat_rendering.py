"""Conversations through real templates: ids of the template's text, positions at its parts' ends, and refusals."""

import tomllib
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from extraction.conversations import Conversation, Turn, with_system
from extraction.directions import extract_at
from extraction.errors import ExtractionError
from extraction.positions import Ends, Rendered, offsets_of
from extraction.rendering import ChatRenderer, RenderedPair
from tests.forward import residual_stream
from tests.tiny import tiny_model

PUBLISHED = Path(__file__).parent / "published"
CHAT = Conversation(
    [
        Turn("system", "Answer in French."),
        Turn("user", "What is a key?"),
        Turn("assistant", "Une clef."),
        Turn("user", "Which assistant door"),
    ]
)
BEGUN = Conversation([*CHAT.turns, Turn("assistant", "La porte")])
POSITIONS = {"system_end": 0, "last_instruction": -7, "post_instruction:2": -5, "prefill_end": 0, "last": -1}
TEXT = (
    "<|im_start|>system\nAnswer in French.<|im_end|>\n<|im_start|>user\nWhat is a key?<|im_end|>\n"
    "<|im_start|>assistant\nUne clef.<|im_end|>\n<|im_start|>user\nWhich assistant door<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2_dir)


@pytest.fixture(scope="module")
def renderer(tokenizer: PreTrainedTokenizerBase) -> ChatRenderer:
    return ChatRenderer(tokenizer)


def test_ids_are_those_of_the_templates_text(tokenizer: PreTrainedTokenizerBase, renderer: ChatRenderer) -> None:
    assert renderer.render(CHAT) == tokenizer(TEXT, add_special_tokens=False)["input_ids"]


def test_an_answer_that_is_begun_is_gone_on_with(tokenizer: PreTrainedTokenizerBase, renderer: ChatRenderer) -> None:
    assert tokenizer.decode(renderer.render(BEGUN)) == TEXT + "La porte"


@pytest.mark.parametrize(
    ("position", "chat", "token"),
    [
        ("system_end", CHAT, "."),
        ("last_instruction", CHAT, " door"),
        ("post_instruction:2", CHAT, "\n"),
        ("last", CHAT, "\n"),
        ("last_instruction", BEGUN, " door"),
        ("prefill_end", BEGUN, "e"),
    ],
)
def test_a_position_is_a_parts_last_token(renderer: ChatRenderer, position: str, chat: Conversation, token: str) -> None:
    rendered = renderer.render(chat)
    place = offsets_of({position: POSITIONS[position]}, [rendered])[0][0]
    assert renderer.tokenizer.decode([rendered[place]]) == token


def test_the_system_text_ends_in_its_own_turn(renderer: ChatRenderer) -> None:
    rendered = renderer.render(CHAT)
    place = offsets_of({"system_end": 0}, [rendered])[0][0]
    assert renderer.tokenizer.decode(rendered[: place + 1]) == "<|im_start|>system\nAnswer in French."


def test_a_plain_prompt_keeps_the_offset_that_all_share(renderer: ChatRenderer) -> None:
    assert offsets_of({"last_instruction": -7}, [renderer.render("What is a key?")]) == [[-7]]


def test_of_one_users_turn_the_two_ways_agree(renderer: ChatRenderer) -> None:
    found = renderer.render(with_system("Which door", "Answer in French."))
    assert offsets_of({"last_instruction": -99}, [found]) == [[-renderer.num_post_tokens - 1]]


def test_a_prompt_without_the_part_is_named(renderer: ChatRenderer) -> None:
    with pytest.raises(ExtractionError, match="pairs, prompt 2: it has no system text, so no position system_end"):
        offsets_of({"system_end": 0}, [renderer.render(CHAT), renderer.render("Hi")], "pairs")


def test_a_prefill_is_no_place_of_a_prompt_without_one(renderer: ChatRenderer) -> None:
    with pytest.raises(ExtractionError, match="it has no prefill"):
        offsets_of({"prefill_end": 0}, [renderer.render(CHAT)])


def test_a_template_without_a_place_for_a_system_text_says_so_and_offers_the_merge(tokenizer: PreTrainedTokenizerBase) -> None:
    plain = ChatRenderer(tokenizer, template="{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<go>")
    assert plain.takes_system()
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + plain.template
    with pytest.raises(ExtractionError, match=r"no place for a system prompt.*--set model.merge_system=true"):
        ChatRenderer(tokenizer, template=refusing).render(CHAT)


def test_the_merge_puts_it_before_the_first_user_text(tokenizer: PreTrainedTokenizerBase) -> None:
    template = "{% for m in messages if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<go>"
    found = ChatRenderer(tokenizer, template=template, merge_system=True).render(CHAT)
    expected = "<user>Answer in French.\n\nWhat is a key?<assistant>Une clef.<user>Which assistant door<go>"
    assert tokenizer.decode(found) == expected


def test_a_merged_system_text_still_has_an_end(tokenizer: PreTrainedTokenizerBase) -> None:
    template = "{% for m in messages if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<go>"
    found = ChatRenderer(tokenizer, template=template, merge_system=True).render(CHAT)
    assert tokenizer.decode(found[: offsets_of({"system_end": 0}, [found])[0][0] + 1]) == "<user>Answer in French."


def test_roles_that_a_template_does_not_know_are_refused_in_its_own_words(tokenizer: PreTrainedTokenizerBase) -> None:
    text = tomllib.loads((PUBLISHED / "mistral.toml").read_text())["template"][0]["text"]
    with pytest.raises(ExtractionError, match=r"fails on turns of user, user: TemplateError: Conversation roles must alternate"):
        ChatRenderer(tokenizer, template=text).render(Conversation([Turn("user", "Hi"), Turn("user", "Which door?")]))


def test_a_turn_that_a_template_drops_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    template = "{% for m in messages if m['role'] != 'tool' %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<go>"
    with pytest.raises(ExtractionError, match=r"leaves out or changes turn 2 \(tool\): 'x = 3'"):
        ChatRenderer(tokenizer, template=template).render(
            Conversation([Turn("user", "Hi"), Turn("tool", "x = 3"), Turn("user", "And?")])
        )


def test_an_earlier_trace_that_a_template_leaves_out_is_no_fault(tokenizer: PreTrainedTokenizerBase) -> None:
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'].split('</think>')[-1] }}{% endfor %}<go>"
    turns = [Turn("user", "Hi"), Turn("assistant", "<think>Hm.</think>Hello."), Turn("user", "Which door?")]
    found = ChatRenderer(tokenizer, template=template).render(Conversation(turns))
    assert tokenizer.decode(found) == "<user>Hi<assistant>Hello.<user>Which door?<go>"


def test_a_position_reads_each_conversations_own_token() -> None:
    model = tiny_model("llama", torch.float32)
    prompts = [Rendered(ids, Ends(system, -2, None)) for ids, system in (([1, 5, 9, 4, 60], -4), ([1, 8, 2, 70, 71, 60], -3))]
    pairs = [RenderedPair(prompts[0], prompts[1])]
    found = extract_at(model, pairs, {"system_end": 0}).directions["system_end"].mean_difference_LH
    streams = [residual_stream(model, ids)[:, ids.ends.system].double() for ids in prompts]
    assert torch.allclose(found, streams[0] - streams[1], atol=1e-5)
