"""Token positions by name, as offsets from the end of a rendered prompt.

Names are `last`, `last_instruction`, the template's tokens after the user's text (`post_instruction:1` ...), and `response`,
the mean over the base model's own response. An offset (-1 is the last token) is the same for every prompt: what follows the
user's text is the template's.
"""

import re
from collections.abc import Sequence

from extraction.errors import ExtractionError

LAST, LAST_INSTRUCTION, POST_INSTRUCTION = "last", "last_instruction", "post_instruction"
RESPONSE = "response"
AFTER_PROMPT = 0  # the offset of what follows the prompt
NUMBERED = re.compile(rf"{POST_INSTRUCTION}:([1-9]\d*)")
NAMES = f"{LAST}, {LAST_INSTRUCTION}, {POST_INSTRUCTION}:1 (the first template token after the text) and so on, {RESPONSE}"


def check_position(name: str) -> str:
    """Return the name of a single position unchanged. Raises ExtractionError for any other name."""
    if name not in (LAST, LAST_INSTRUCTION, RESPONSE) and not NUMBERED.fullmatch(name):
        raise ExtractionError(f"Unknown position '{name}'; expected {NAMES}.")
    return name


def offset_of(name: str, num_post_tokens: int) -> int:
    """A position's offset from the end of a rendered prompt; 0 for the response.

    num_post_tokens: how many tokens the template writes after the user's text.
    Raises ExtractionError for a token that the template does not write.
    """
    check_position(name)
    if name == RESPONSE:
        return AFTER_PROMPT
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
