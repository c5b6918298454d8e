"""The one rendering through the chat templates that people's models have, against what their publishers' forms give.

The templates are written down here with what matters of them; the renderings are written by hand.
"""

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from extraction.errors import ExtractionError
from extraction.rendering import ChatRenderer

PUBLISHED = [
    entry
    for file in sorted(Path(__file__).with_name("published").glob("*.toml"))
    for entry in tomllib.loads(file.read_text())["template"]
]
MARK = re.compile(r"<[^<>\n]+>|\[/?[A-Z_]+\]|\[\|\w+\|\]")  # what each publisher's tokenizer has one token for
DAY = date(2026, 1, 31)


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    marks = sorted({mark for entry in PUBLISHED for mark in MARK.findall(entry["rendered"])})
    tokenizer.add_special_tokens({"bos_token": "<BOS>", "eos_token": "<EOS>", "additional_special_tokens": marks})
    return tokenizer


@pytest.fixture(scope="module", params=PUBLISHED, ids=[entry["of"].split(",")[0] for entry in PUBLISHED])
def entry(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


@pytest.fixture(scope="module")
def renderer(tokenizer: PreTrainedTokenizerBase, entry: dict[str, Any]) -> ChatRenderer:
    return ChatRenderer(tokenizer, entry["keys"], template=entry["text"], clock=DAY)


def test_a_users_message_becomes_the_published_text(
    tokenizer: PreTrainedTokenizerBase, renderer: ChatRenderer, entry: dict[str, Any]
) -> None:
    assert tokenizer.decode(renderer.render("Hi there")) == entry["rendered"]


def test_the_tokens_after_the_text_are_the_templates(
    tokenizer: PreTrainedTokenizerBase, renderer: ChatRenderer, entry: dict[str, Any]
) -> None:
    after = tokenizer.decode(renderer.render("Hi there")[-renderer.num_post_tokens :])
    assert entry["rendered"].endswith(after)


def test_a_place_for_a_system_prompt_is_found(renderer: ChatRenderer, entry: dict[str, Any]) -> None:
    assert renderer.takes_system() == entry["takes_system"]


def test_a_template_that_prints_the_clock_is_refused_without_a_day(
    tokenizer: PreTrainedTokenizerBase, entry: dict[str, Any]
) -> None:
    if entry["prints_clock"]:
        with pytest.raises(ExtractionError, match=r"prints today's date.*model.clock=2026-01-31"):
            ChatRenderer(tokenizer, entry["keys"], template=entry["text"])
    else:
        assert ChatRenderer(tokenizer, entry["keys"], template=entry["text"]).rendered_probe
