"""Token positions by name, as offsets from the end of a rendered prompt.

Names are `last`, `last_instruction`, the template's tokens after the user's text (`post_instruction:1` ...), and `response`,
the mean over the base model's own response. An offset (-1 is the last token) is the same for every prompt: what follows the
user's text is the template's. Of a conversation each position is its own: see `Rendered` and `offsets_of`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from extraction.errors import ExtractionError
from extraction.thinking import NAMES as OF_TRACES
from extraction.thinking import is_of_trace

LAST, LAST_INSTRUCTION, POST_INSTRUCTION = "last", "last_instruction", "post_instruction"
RESPONSE = "response"
SYSTEM_END, PREFILL_END = "system_end", "prefill_end"
OF_CONVERSATIONS = (SYSTEM_END, PREFILL_END)
AFTER_PROMPT = 0  # the offset of what follows the prompt
OWN = 0  # and of what each conversation has in a place of its own
NUMBERED = re.compile(rf"{POST_INSTRUCTION}:([1-9]\d*)")
NAMES = (
    f"{LAST}, {LAST_INSTRUCTION}, {POST_INSTRUCTION}:1 (the first template token after the text) and so on, {SYSTEM_END}, "
    f"{PREFILL_END}, {RESPONSE}; of a model that thinks first {OF_TRACES}"
)


@dataclass(frozen=True)
class Ends:
    """Where the parts of a rendered conversation end, as offsets from the prompt's end (-1 is the last token).

    system: None where there is no system text. prefill: None where the prompt does not begin an answer.
    """

    system: int | None
    instruction: int
    prefill: int | None


class Rendered(list[int]):
    """Token ids of a conversation, which know where its parts end."""

    def __init__(self, token_ids: Iterable[int], ends: Ends) -> None:
        super().__init__(token_ids)
        self.ends = ends


def check_position(name: str) -> str:
    """Return the name of a single position unchanged. Raises ExtractionError for any other name."""
    if is_of_trace(name):
        return name
    if name not in (LAST, LAST_INSTRUCTION, RESPONSE, *OF_CONVERSATIONS) and not NUMBERED.fullmatch(name):
        raise ExtractionError(f"Unknown position '{name}'; expected {NAMES}.")
    return name


def is_generated(name: str) -> bool:
    """Whether a position stands in what the model says, which is generated first."""
    return name == RESPONSE or is_of_trace(name)


def offset_of(name: str, num_post_tokens: int) -> int:
    """A position's offset from the end of a rendered prompt; 0 for the response, and for what conversations alone have.

    num_post_tokens: how many tokens the template writes after the user's text.
    Raises ExtractionError for a token that the template does not write.
    """
    check_position(name)
    if is_generated(name):
        return AFTER_PROMPT
    if name in OF_CONVERSATIONS:
        return OWN
    if name == LAST:
        return -1
    if name == LAST_INSTRUCTION:
        return -num_post_tokens - 1
    number = int(name.partition(":")[2])
    if number > num_post_tokens:
        raise ExtractionError(
            f"Position {name} is not there: the template writes {num_post_tokens} tokens after the user's text."
        )
    return number - 1 - num_post_tokens


def expand_positions(names: Sequence[str], num_post_tokens: int) -> list[str]:
    """Names of single positions, each once.

    `post_instruction` stands for every template token after the user's text, of which the final one is `last`.
    """
    by_offset: dict[int, str] = {}
    for name in names:
        every = [*(f"{POST_INSTRUCTION}:{number}" for number in range(1, num_post_tokens)), LAST]
        for single in every if name == POST_INSTRUCTION else [name]:
            by_offset.setdefault(offset_of(single, num_post_tokens), single)
    return list(by_offset.values())


def offsets_of(positions: Mapping[str, int], prompts: Sequence[Sequence[int]], what: str = "prompts") -> list[list[int]]:
    """Each prompt's offsets of the positions, from its own end: one row a prompt.

    positions: with the offsets that plain prompts share, as `offset_of` gives them. what: names the prompts in a message.
    Raises ExtractionError for a prompt without such a position, by its place from 1.
    """
    found = []
    for place, prompt in enumerate(prompts, 1):
        ends = prompt.ends if isinstance(prompt, Rendered) else None
        try:
            found.append([_offset(name, offset, ends) for name, offset in positions.items()])
        except ExtractionError as error:
            raise ExtractionError(f"{what}, prompt {place}: {error}") from error
    return found


def _offset(name: str, shared: int, ends: Ends | None) -> int:
    if name in OF_CONVERSATIONS:
        own = None if ends is None else ends.system if name == SYSTEM_END else ends.prefill
        if own is None:
            raise ExtractionError(f"it has no {'system text' if name == SYSTEM_END else 'prefill'}, so no position {name}.")
        return own
    if ends is None or name == LAST or is_generated(name):
        return shared
    number = 0 if name == LAST_INSTRUCTION else int(name.partition(":")[2])
    if ends.instruction + number > -1:
        raise ExtractionError(f"it has {-1 - ends.instruction} tokens after the user's text, so no position {name}.")
    return ends.instruction + number
