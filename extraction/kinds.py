"""Kinds of prompts: the unit that is resampled, split and swapped, because prompts of one kind resemble each other.

A kind is a prompt's `category`; a prompt without one is a kind of its own. Kinds are drawn whole, with all their prompts.
Drawing prompts anew within a drawn kind counts the prompts' own scatter twice (Davison and Hinkley 1997, section 3.8).
"""
# N = pairs or prompts, G = kinds, R = resamples

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extraction.errors import ExtractionError

TAIL = 0.025  # on either side of a 95 % interval
FEW = 8  # with fewer kinds intervals are too narrow
FEW_NOTE = "Only {count} kinds of prompts: with fewer than 8 a 95 % interval covers less often than it says."
ONE_NOTE = "All prompts are of one kind: prompts are resampled, and the intervals hold for that kind alone."


@dataclass(frozen=True)
class Kinds:
    """The place of each prompt's kind, (N,) whole numbers from 0, in the order in which kinds appear.

    one: all prompts are of one named kind, so each is a unit of its own: nothing is known beyond that kind.
    """

    codes_N: np.ndarray
    one: bool = False

    @staticmethod
    def of(kinds: Sequence[str] | None, count: int) -> "Kinds":
        """The kinds of `count` prompts; None where each is its own. Raises ExtractionError for another number of names."""
        if kinds is None:
            return Kinds(np.arange(count))
        if len(kinds) != count:
            raise ExtractionError(f"Found {len(kinds)} kinds for {count} prompts; expected one for each.")
        seen: dict[str | int, int] = {}
        codes = [seen.setdefault(kind or place, len(seen)) for place, kind in enumerate(kinds)]
        if len(seen) == 1 and count > 1:
            return Kinds(np.arange(count), one=True)
        return Kinds(np.array(codes, dtype=int))

    @property
    def count(self) -> int:
        """The number of kinds, G."""
        return int(self.codes_N.max()) + 1 if len(self.codes_N) else 0

    @property
    def alone(self) -> bool:
        """True where every prompt is a unit of its own."""
        return self.count == len(self.codes_N)

    @property
    def note(self) -> str | None:
        """A warning to print beside intervals; None where there are eight kinds or more."""
        if self.one:
            return ONE_NOTE
        return FEW_NOTE.format(count=self.count) if self.count < FEW else None

    @property
    def tail(self) -> float:
        """The share of resamples on either side of a 95 % interval: 0.025, and less where prompts come in few kinds."""
        return TAIL if self.alone else expanded_tail(self.count)

    @property
    def sizes_G(self) -> np.ndarray:
        """Prompts of each kind."""
        return np.bincount(self.codes_N, minlength=self.count).astype(float)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over each kind's prompts: (N, ...) to (G, ...)."""
        if self.alone:
            return values
        found = np.zeros((self.count, *values.shape[1:]))
        for code, row in zip(self.codes_N, values, strict=True):
            found[code] += row
        return found

    def drawn(self, resamples: int, rng: np.random.Generator) -> np.ndarray:
        """How often each kind is drawn, (R, G) whole numbers that sum to G."""
        return rng.multinomial(self.count, np.full(self.count, 1 / self.count), resamples).astype(float)

    def weights(self, resamples: int, rng: np.random.Generator) -> np.ndarray:
        """How often each prompt is drawn where kinds are drawn whole, (R, N) whole numbers."""
        return self.drawn(resamples, rng)[:, self.codes_N]

    def signs(self, resamples: int, rng: np.random.Generator) -> np.ndarray:
        """+1 or -1 for every prompt, the same for all of a kind, (R, N): which kinds have their sides swapped."""
        return rng.choice([-1.0, 1.0], (resamples, self.count))[:, self.codes_N]


def expanded_tail(count: int) -> float:
    """The share of resamples on either side of a 95 % interval from `count` units, as wide as Student's.

    The expanded percentile interval (Hesterberg 2015, doi:10.1080/00031305.2015.1089789).
    """
    from scipy.special import ndtr, stdtrit

    return float(ndtr(np.sqrt(count / (count - 1)) * stdtrit(count - 1, TAIL))) if count > 1 else TAIL
