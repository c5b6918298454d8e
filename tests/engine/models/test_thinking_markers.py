"""Markers of traces: the template's, given ones, and those of vLLM's reasoning parsers, whose split is the reference."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.errors import EngineError
from engine.models.thinking import Thinking
from extraction.errors import ExtractionError

TEXTS = {
    "begun and ended": "<think>\nA key opens doors.\n</think>\n\nA key is metal.",
    "ended alone": "A key opens doors.</think>A key is metal.",
    "nothing behind the end": "<think>A key opens doors.</think>",
    "no end": "<think>A key opens",
}


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> Any:
    found = AutoTokenizer.from_pretrained(smollm2_dir)
    found.add_tokens(["<think>", "</think>"])
    return found


def split(tokenizer: Any, reasoning: str, text: str, template: str = "") -> dict[str, Any]:
    return Thinking(tokenizer, template, reasoning).columns([1], tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("parser", ["deepseek_r1", "qwen3", "nemotron_v3"])
def test_the_answer_is_what_vllms_parser_calls_content(tokenizer: Any, parser: str, text: str) -> None:
    from vllm.reasoning import ReasoningParserManager

    reference = ReasoningParserManager.get_reasoning_parser(parser)(tokenizer).extract_reasoning(TEXTS[text], None)
    found = split(tokenizer, parser, TEXTS[text])
    assert found["response"].strip() == (reference[1] or "").strip()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("parser", ["deepseek_r1", "qwen3"])
def test_the_trace_is_what_vllms_parser_calls_reasoning(tokenizer: Any, parser: str, text: str) -> None:
    from vllm.reasoning import ReasoningParserManager

    reference = ReasoningParserManager.get_reasoning_parser(parser)(tokenizer).extract_reasoning(TEXTS[text], None)
    assert split(tokenizer, parser, TEXTS[text])["trace"].strip() == (reference[0] or "").strip()


def test_a_parsers_markers_are_what_given_ones_are(tokenizer: Any) -> None:
    text = TEXTS["begun and ended"]
    assert split(tokenizer, "<think>,</think>", text) == split(tokenizer, "qwen3", text)


def test_the_templates_markers_are_taken_by_auto(tokenizer: Any) -> None:
    text = TEXTS["begun and ended"]
    assert split(tokenizer, "auto", text, "<think></think>") == split(tokenizer, "qwen3", text)


def test_a_trace_counts_its_markers(tokenizer: Any) -> None:
    ids = tokenizer.encode("<think>A key</think>", add_special_tokens=False)
    assert split(tokenizer, "<think>,</think>", "<think>A key</think> yes")["num_trace_tokens"] == len(ids)


def test_a_trace_without_an_end_is_unfinished(tokenizer: Any) -> None:
    assert split(tokenizer, "<think>,</think>", TEXTS["no end"])["unfinished"]


def test_what_never_thought_is_all_answer(tokenizer: Any) -> None:
    found = split(tokenizer, "<think>,</think>", "A key is metal.")
    assert (found["response"], found["trace"]) == ("A key is metal.", None)


def test_a_prompt_that_ended_its_trace_has_an_answer_alone(tokenizer: Any) -> None:
    prompt = tokenizer.encode("<think>\n\n</think>", add_special_tokens=False)
    said = tokenizer.encode("A key is metal.", add_special_tokens=False)
    assert Thinking(tokenizer, "", "deepseek_r1").columns(prompt, said)["response"] == "A key is metal."


@pytest.mark.parametrize(
    ("reasoning", "message"),
    [
        ("auto", "the chat template writes no marker of a trace that is known"),
        ("qwen9", "expected auto, two markers, or a parser of vLLM: .*qwen3"),
        ("<think>,", "expected two markers"),
        ("openai_gptoss", "has no markers around a trace|does not take this tokenizer"),
    ],
)
def test_what_cannot_tell_a_trace_is_refused(tokenizer: Any, reasoning: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        Thinking(tokenizer, "", reasoning)


def test_a_marker_that_the_tokenizer_cannot_write_is_refused(tmp_path: Path) -> None:
    from tests.tiny import save_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(tmp_path))
    with pytest.raises(ExtractionError, match=r"no token for the marker '\u2039think\u203a'"):
        Thinking(tokenizer, "", "\u2039think\u203a,</think>")
