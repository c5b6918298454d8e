"""lm-eval's models render chats as our own stages do."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.lmeval.injection import _with_template
from extraction.rendering import ChatRenderer

SHOWS = "{{ 'undefined' if enable_thinking is not defined else enable_thinking }}"


def rendered(directory: Path, template: dict[str, Any] | None, chat_template: str | None = None) -> str:
    """One message as lm-eval asks for it: with an enable_thinking of its own."""
    model = _with_template(SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(directory)), template)
    if chat_template is not None:
        model.tokenizer.chat_template = chat_template
    asked = {"tokenize": False, "add_generation_prompt": True, "continue_final_message": False, "enable_thinking": None}
    return str(model.tokenizer.apply_chat_template([{"role": "user", "content": "Why is the sky blue?"}], **asked))


def test_a_chat_is_rendered_as_for_rollouts(smollm2_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    ours = ChatRenderer(tokenizer).render("Why is the sky blue?")
    assert tokenizer(rendered(smollm2_dir, {}), add_special_tokens=False).input_ids == ours


@pytest.mark.parametrize(("template", "seen"), [({}, "undefined"), (None, "undefined"), ({"enable_thinking": False}, "False")])
def test_the_templates_arguments_are_the_models_and_not_lm_evals(
    template: dict[str, Any] | None, seen: str, smollm2_dir: Path
) -> None:
    assert rendered(smollm2_dir, template, SHOWS) == seen
