"""A judge's error on labelled responses of one source, and figures of that source corrected for it.

Error rates differ from source to source: rules that know the base's wording may not know an edited model's. So labels of
different sources (base, edited, control) are never pooled.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from judging.statistics import MISSING, Estimate, Figure, difference, joined

SCALES = ("compliance", "coherence", "product", "declined")
LEAST = 10  # labels of a source, below which its errors are not measured
CORRECTED = "less the judge's bias on this variant's labels, square and add"
APART = "of two independent intervals (MOVER)"


def bias(judge: Sequence[float | None], human: Sequence[float | None], units: Sequence[str]) -> Estimate:
    """The judge's mean error, judge less human, with its interval over units. MISSING where fewer than two pairs are known.

    units: what is drawn as one, such as the prompt's kind; readings of one response by two raters share a unit.
    """
    known = [place for place, pair in enumerate(zip(judge, human, strict=True)) if None not in pair]
    if len(known) < 2:
        return MISSING
    first, second = ([float(side[place] or 0.0) for place in known] for side in (judge, human))
    return difference(Figure.mean_of(first), Figure.mean_of(second), [units[place] for place in known])


def corrected(seen: Estimate, error: Estimate) -> Estimate:
    """A rate or mean less the judge's bias, within 0 to 1, with an interval that holds both uncertainties.

    Right where the labelled responses are a random sample of those that the figure is of (the difference estimator of double
    sampling, Cochran 1977, 12.7; Angelopoulos et al. 2023). MISSING where either is.
    """
    if None in (seen.value, seen.low, error.value, error.low):
        return MISSING
    value = apart(seen, error)
    low, middle, high = (min(max(float(bound or 0.0), 0.0), 1.0) for bound in (value.low, value.value, value.high))
    return Estimate(middle, low, high, seen.n, CORRECTED)


def apart(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two independent estimates with its interval (Zou and Donner 2008); MISSING where one is."""
    ends = [first.value, first.low, first.high, second.value, second.low, second.high]
    if any(end is None or math.isnan(end) for end in ends):
        return MISSING
    mine, low, high, other, lower, higher = (float(end or 0.0) for end in ends)
    value = mine - other
    return Estimate(
        value,
        value - joined(mine - low, higher - other),
        value + joined(high - mine, other - lower),
        min(first.n, second.n),
        APART,
    )


def differs(first: Estimate, second: Estimate) -> bool:
    """Whether two independent estimates are apart: the interval of their difference leaves 0 out."""
    found = apart(first, second)
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


def bias_by_scale(
    judge: Sequence[tuple[float | None, float | None, bool | None]],
    human: Sequence[tuple[float | None, float | None, bool | None]],
    units: Sequence[str],
) -> dict[str, Any]:
    """The bias of compliance, coherence, product and declined, from (compliance, coherence, declined) of each response."""
    sides = [_columns(side) for side in (judge, human)]
    return {name: asdict(bias(sides[0][name], sides[1][name], units)) for name in SCALES}


def _columns(grades: Sequence[tuple[float | None, float | None, bool | None]]) -> dict[str, list[float | None]]:
    return {
        "compliance": [one[0] for one in grades],
        "coherence": [one[1] for one in grades],
        "product": [None if one[0] is None or one[1] is None else one[0] * one[1] for one in grades],
        "declined": [None if one[2] is None else float(one[2]) for one in grades],
    }
