"""Two answers side by side in a terminal."""

import itertools
import textwrap
from collections.abc import Sequence

from engine.display.escape import for_terminal

HELP = "/alpha 0.5 changes how much is taken out, /system TEXT begins anew under a system prompt, /new begins anew, /quit ends."
GAP = " | "
NARROW = 60  # columns below which the answers stand one above the other


def beside(names: Sequence[str], texts: Sequence[str], width: int) -> str:
    """Each text under its name, in columns that fit `width`; one above the other where that is narrow."""
    texts = [for_terminal(text) or "(nothing)" for text in texts]
    if width < NARROW:
        return "\n".join(
            line for name, text in zip(names, texts, strict=True) for line in (f"{name}:", _wrapped(text, width), "")
        )
    column = (width - len(GAP) * (len(names) - 1)) // len(names)
    blocks = [[name, "-" * column, *_wrapped(text, column).splitlines()] for name, text in zip(names, texts, strict=True)]
    rows = itertools.zip_longest(*blocks, fillvalue="")
    return "\n".join(GAP.join(f"{cell:<{column}}" for cell in row).rstrip() for row in rows)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in text.splitlines())
