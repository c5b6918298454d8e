"""Is a loss ruled out? Two one-sided tests within a margin, and the smallest difference that these documents could have shown.

TOST (Schuirmann 1987, doi:10.1007/BF01068419): both tests below 0.05 say that the true difference is within the margin. A
difference that is merely not significant says no such thing.
"""

import math
from dataclasses import dataclass

from engine.errors import EngineError
from engine.runs.schemas import Row

MARGIN = 0.02
LEVEL, POWER = 0.05, 0.8
EQUIVALENT, LOWER, HIGHER, UNKNOWN = "equivalent", "lower", "higher", "cannot tell"


@dataclass(frozen=True)
class Spread:
    """How a difference scatters: its centre and standard error as the tests take them, and Student's degrees of freedom.

    degrees: None for the normal distribution.
    """

    centre: float
    error: float
    degrees: int | None = None

    def tail(self, distance: float) -> float:
        """Probability of a value above `distance`."""
        ratio = distance / self.error if self.error > 0 else math.copysign(math.inf, distance)
        from scipy.stats import norm, t  # over a second: a margin is refused before

        return float(norm.sf(ratio) if self.degrees is None else t.sf(ratio, self.degrees))

    def quantile(self, share: float) -> float:
        """The quantile in standard errors."""
        from scipy.stats import norm, t

        return float(norm.ppf(share) if self.degrees is None else t.ppf(share, self.degrees))


def check_margin(margin: float) -> float:
    """The margin. Raises EngineError for one that is not between 0 and 1."""
    if not 0 < margin < 1:
        raise EngineError(f"--margin takes a share between 0 and 1, such as 0.02 for 2 points; found {margin:g}.")
    return margin


def equivalence(spread: Spread | None, difference: Row, margin: float) -> Row:
    """`tost_p`, `detectable` and `verdict` of a difference whose estimate has a value and the ends of its 95 % interval.

    detectable: the true difference that a two-sided test at 0.05 shows in 80 of 100 such samples.
    verdict: equivalent (within the margin), lower or higher (the 95 % interval is on one side of 0), both, or cannot tell.
    """
    if spread is None:
        return {"tost_p": None, "detectable": None, "verdict": UNKNOWN}
    p = max(spread.tail(margin + spread.centre), spread.tail(margin - spread.centre))
    detectable = (spread.quantile(1 - LEVEL / 2) + spread.quantile(POWER)) * spread.error
    return {"tost_p": p, "detectable": detectable, "verdict": _verdict(p, difference)}


def _verdict(p: float, difference: Row) -> str:
    side = LOWER if difference["high"] < 0 else HIGHER if difference["low"] > 0 else None
    found = [name for name in (EQUIVALENT if p < LEVEL else None, side) if name]
    return ", ".join(found) or UNKNOWN
