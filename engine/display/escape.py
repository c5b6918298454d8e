"""Text from outside, written so that its medium shows it and does not obey it."""

import re

# Control characters but tab and newline, marks that turn the direction of writing, and halves of surrogate pairs.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def for_terminal(text: str) -> str:
    """The text with what a terminal would obey as escapes such as \\x1b; lines stay lines."""
    return OBEYED.sub(lambda found: ascii(found.group())[1:-1], text)
