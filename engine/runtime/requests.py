"""What a request asks for: a variant, how strongly, at which sites, at which tokens; and what keys its cached prompt."""

from dataclasses import dataclass
from typing import Any

from engine.errors import EngineError

EXTRA = "intervention"  # the key among a request's extra arguments
EVERY, PROMPT, RESPONSE, LAST = "every", "prompt", "response", "last"
POSITIONS = (EVERY, PROMPT, RESPONSE, LAST)
INPUTS, WRITES, EMBEDDING, BLOCK = "inputs", "writes", "embedding", "block:"


@dataclass(frozen=True)
class Asked:
    """A variant by its name, at one strength.

    alpha: the share of each row's component that is taken out. add: the multiple of each row that is added. site: inputs (the
    stream entering each block), writes (of attention and MLP), embedding, several joined by "+", or block:N, the stream
    entering one block. positions: every token, those of the prompt, of the response, or the prompt's last.
    """

    variant: str
    alpha: float = 0.0
    add: float = 0.0
    site: str = INPUTS
    positions: str = EVERY

    @property
    def is_nothing(self) -> bool:
        """Whether the request is the base's, to the bit."""
        return self.alpha == 0 and self.add == 0

    def extra_args(self) -> dict[str, Any]:
        """The extra arguments of vLLM's SamplingParams."""
        return {} if self.is_nothing else {EXTRA: [self.variant, self.alpha, self.add, self.site, self.positions]}

    def cache_salt(self) -> str | None:
        """What keeps the keys and values of this request from every other intervention's; None for the base's own."""
        return None if self.is_nothing else f"{self.variant}:{self.alpha!r}:{self.add!r}:{self.site}:{self.positions}"


def checked(asked: Asked, sites: tuple[str, ...], num_blocks: int) -> Asked:
    """The request with its strengths as floats. Raises EngineError for a strength, site or position that is none.

    sites: those that the engine was opened for.
    """
    for name in ("alpha", "add"):
        value = getattr(asked, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise EngineError(f"{name} takes a finite number; found {value!r}.")
    if asked.positions not in POSITIONS:
        raise EngineError(f"positions takes {', '.join(POSITIONS)}; found '{asked.positions}'.")
    for site in asked.site.split("+"):
        number = site.removeprefix(BLOCK)
        known = INPUTS in sites and number.isdecimal() and int(number) < num_blocks if site.startswith(BLOCK) else site in sites
        if not known:
            blocks = f", {BLOCK}0 to {BLOCK}{num_blocks - 1}" if INPUTS in sites else ""
            raise EngineError(f"This engine has the sites {', '.join(sites)}{blocks}; found '{site}'.")
    return Asked(asked.variant, float(asked.alpha), float(asked.add), asked.site, asked.positions)


def asked_of(extra_args: dict[str, Any]) -> Asked | None:
    """What a request's extra arguments ask for; None where that is nothing."""
    return Asked(*extra_args[EXTRA]) if EXTRA in extra_args else None
