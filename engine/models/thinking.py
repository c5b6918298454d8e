"""The markers around a model's trace: by vLLM's reasoning parser of its family, by its template, or as they are given."""

from typing import Any

from engine.errors import EngineError
from extraction.thinking import Markers, Parts, written_markers

AUTO, BETWEEN = "auto", ","


class Thinking:
    """Tells trace from answer in a model's responses.

    start, end: the markers' texts, as vLLM's budget for a trace takes them.
    """

    def __init__(self, tokenizer: Any, template: str, reasoning: str) -> None:
        """`reasoning`: auto (the template's markers), START,END, or the name of one of vLLM's reasoning parsers.

        Raises EngineError for a name that is not known, and where there are no markers.
        """
        self.tokenizer = tokenizer
        self.start, self.end, always = _texts(tokenizer, template, reasoning)
        self.markers = Markers.of(tokenizer, self.start, self.end, always=always)

    def parts(self, prompt: list[int], response: list[int]) -> Parts:
        """Where a response's trace and answer are."""
        return self.markers.parts(prompt, response)

    def columns(self, prompt: list[int], response: list[int]) -> dict[str, Any]:
        """A row's answer as `response`, and its trace, which is None where the model did not think."""
        parts = self.parts(prompt, response)
        trace = None if parts.begin is None else self._text(response[parts.begin : parts.end])
        return {
            "response": self._text(response[parts.answer :]),
            "trace": trace,
            "num_trace_tokens": 0 if parts.begin is None else parts.answer,
            "unfinished": parts.unfinished,
        }

    def _text(self, token_ids: list[int]) -> str:
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True))


def _texts(tokenizer: Any, template: str, reasoning: str) -> tuple[str, str, bool]:
    if reasoning == AUTO:
        if (found := written_markers(template)) is None:
            raise EngineError(
                "model.reasoning = 'auto', and the chat template writes no marker of a trace that is known. Name one of vLLM's "
                "reasoning parsers, or both markers: --set model.reasoning='<think>,</think>'."
            )
        return *found, False
    if BETWEEN in reasoning:
        start, _, end = (part.strip() for part in reasoning.partition(BETWEEN))
        if not start or not end:
            raise EngineError(f"model.reasoning = '{reasoning}'; expected two markers, such as <think>,</think>.")
        return start, end, False
    return _of_parser(tokenizer, reasoning)


def _of_parser(tokenizer: Any, name: str) -> tuple[str, str, bool]:
    from vllm.reasoning import ReasoningParserManager

    known = ReasoningParserManager.list_registered()
    if name not in known:
        raise EngineError(f"model.reasoning = '{name}'; expected auto, two markers, or a parser of vLLM: {', '.join(known)}.")
    try:
        parser = ReasoningParserManager.get_reasoning_parser(name)(tokenizer)
        start, end = parser.reasoning_start_str, parser.reasoning_end_str
        always = bool(start) and parser.extract_reasoning("Hm", None)[1] is None
    except Exception as error:  # each parser raises its own where the tokenizer lacks its markers
        raise EngineError(f"vLLM's reasoning parser {name} does not take this tokenizer ({error}). Choose another.") from error
    if not start or not end:
        raise EngineError(
            f"vLLM's reasoning parser {name} has no markers around a trace. Give them: model.reasoning='START,END'."
        )
    return start, end, always
