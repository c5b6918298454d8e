"""Models that think first: where a trace ends and the answer begins, by the markers around the trace, in tokens.

Takes markers and token ids. Which markers a family has, vLLM's reasoning parsers say (`engine.models.thinking`), or the chat
template that writes them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from extraction.errors import ExtractionError

# Markers that chat templates write: after what begins a trace and what ends it.
WRITTEN = (
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<reasoning>", "</reasoning>"),
    ("<thinking>", "</thinking>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
TRACE, THINK_END, ANSWER_START = "trace", "think_end", "answer_start"
BEFORE_END = re.compile(rf"{THINK_END}(:-([1-9]\d*))?")
NAMES = f"{TRACE} (its mean), {THINK_END}:-1 (the last token of the trace) and so on, {THINK_END} (its marker), {ANSWER_START}"


@dataclass(frozen=True)
class Parts:
    """Places in a response's tokens: the trace is [begin, end), the answer starts at `answer`.

    The markers stand before `begin` and from `end` to `answer`. unfinished: the response ended inside its trace, and `answer` is
    its length. begin is None where there is no trace.
    """

    begin: int | None
    end: int
    answer: int
    unfinished: bool = False


class Thought(list[int]):
    """Token ids of a response that know where their trace ends."""

    def __init__(self, token_ids: Iterable[int], parts: Parts) -> None:
        super().__init__(token_ids)
        self.parts = parts


@dataclass(frozen=True)
class Markers:
    """What stands around a trace, as token ids. always: a response without any marker is a trace that has not ended."""

    start_ids: tuple[int, ...]
    end_ids: tuple[int, ...]
    always: bool = False

    @staticmethod
    def of(tokenizer: Any, start: str, end: str, *, always: bool = False) -> "Markers":
        """The markers in a tokenizer's tokens. Raises ExtractionError for one that it has no tokens for."""
        ids = [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in (start, end)]
        for text, found in zip((start, end), ids, strict=True):
            if not found or tokenizer.unk_token_id in found:
                raise ExtractionError(f"The tokenizer has no token for the marker {text!r}; give others: model.reasoning.")
        return Markers(ids[0], ids[1], always)

    def parts(self, prompt: Sequence[int], response: Sequence[int]) -> Parts:
        """Where a response's trace and answer are. A prompt may begin the trace, or end it before the response begins."""
        begun, ended = find_last(prompt, self.start_ids), find_last(prompt, self.end_ids)
        if ended > begun:
            return Parts(None, 0, 0)
        begin = 0 if begun >= 0 else self._begin(response)
        end = find(response, self.end_ids, begin or 0)
        if end >= 0:
            return Parts(begin or 0, end, end + len(self.end_ids))
        if begin is None and not self.always:
            return Parts(None, 0, 0)
        return Parts(begin or 0, len(response), len(response), unfinished=True)

    def _begin(self, response: Sequence[int]) -> int | None:
        """The place behind the start marker; None where the response has none."""
        place = find(response, self.start_ids, 0)
        return None if place < 0 else place + len(self.start_ids)


def find(ids: Sequence[int], wanted: Sequence[int], start: int) -> int:
    """The first place from `start` on where some tokens stand; -1 where they do not."""
    size = len(wanted)
    return next((place for place in range(start, len(ids) - size + 1) if tuple(ids[place : place + size]) == tuple(wanted)), -1)


def find_last(ids: Sequence[int], wanted: Sequence[int]) -> int:
    """The last place where some tokens stand; -1 where they do not."""
    size = len(wanted)
    return next((place for place in range(len(ids) - size, -1, -1) if tuple(ids[place : place + size]) == tuple(wanted)), -1)


def written_markers(template: str) -> tuple[str, str] | None:
    """The markers that a chat template writes; None where it knows of no trace."""
    return next(((start, end) for start, end in WRITTEN if end in template), None)


def behind_trace(text: str) -> str:
    """What a text says behind its last trace: templates leave earlier traces out."""
    for _, end in WRITTEN:
        text = text.rpartition(end)[2]
    return text


def is_of_trace(name: str) -> bool:
    """Whether a position stands in what a model thinks, or where its answer starts."""
    return name in (TRACE, ANSWER_START) or bool(BEFORE_END.fullmatch(name))


def place_in(name: str, parts: Parts) -> int:
    """A single token's place in a response. Raises ExtractionError for a response that has none there."""
    if name == ANSWER_START:
        return parts.answer
    if parts.begin is None or parts.unfinished:
        raise ExtractionError(f"it has {'no trace' if parts.begin is None else 'a trace without an end'}, so no position {name}.")
    found = BEFORE_END.fullmatch(name)
    assert found is not None
    back = int(found.group(2) or 0)
    if back > parts.end - parts.begin:
        raise ExtractionError(f"its trace has {parts.end - parts.begin} tokens, so no position {name}.")
    return parts.end - back
