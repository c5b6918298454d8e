"""Rates, means and products of grades with 95 % intervals, the kind of a prompt as the unit.

Every value is from 0 to 1. The interval of a mean is Wilson's score interval at the number of independent prompts that would
give the variance seen over kinds, with Student's quantile (Dean and Pagano 2015; Korn and Graubard 1998). It has a width where
all grades are equal, and with a kind for each prompt it is Wilson's. Simulated coverage stands in judging/README.md.
"""
# N = prompts, G = kinds

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
WILSON = "Wilson score"
OVER_KINDS, OVER_PROMPTS = "Wilson score at the effective n, over kinds", "Wilson score at the effective n, over prompts"
DIFFERENCE = "of two intervals (MOVER), "
PRODUCT, PRODUCT_OF_MEANS = "product", "product_of_means"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval. All None where nothing could be scored; one response alone has no interval.

    n: how many were counted or averaged (responses, pairs, documents).
    method: the name of the interval's method.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int = 0
    method: str = ""

    def text(self, digits: int = 3) -> str:
        """`0.910 [0.871, 0.950]`; the value alone where it has no interval, and a dash where there is none."""
        if self.value is None:
            return "-"
        bounds = "" if self.low is None else f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{self.value:.{digits}f}{bounds}"

    __str__ = text


MISSING = Estimate(None, None, None)


@dataclass(frozen=True)
class Figure:
    """A figure of prompts, and each prompt's influence on it (N,): what an interval over kinds is made of."""

    value: float
    influence_N: "np.ndarray"

    @staticmethod
    def mean_of(values: Sequence[float]) -> "Figure":
        """The mean of values."""
        import numpy as np

        values_N = np.asarray(values, dtype=float)
        middle = float(values_N.mean())
        return Figure(middle, (values_N - middle) / len(values_N))

    @staticmethod
    def product_of(first: Sequence[float], second: Sequence[float]) -> "Figure":
        """The product of two means of the same prompts, linearised (the delta method)."""
        one, other = Figure.mean_of(first), Figure.mean_of(second)
        return Figure(one.value * other.value, other.value * one.influence_N + one.value * other.influence_N)


def share(successes: int, total: int) -> Estimate:
    """A share of independent trials with Wilson's score interval (Wilson 1927)."""
    if total == 0:
        return MISSING
    low, high = wilson(successes / total, total, _normal())
    return Estimate(successes / total, low, high, total, WILSON)


def rate(flags: Sequence[bool], kinds: Sequence[str] | None = None) -> Estimate:
    """The share of prompts with a flag, the kind as the unit."""
    return mean([float(flag) for flag in flags], kinds)


def mean(values: Sequence[float], kinds: Sequence[str] | None = None) -> Estimate:
    """The mean of values from 0 to 1, the kind as the unit.

    kinds: one a value; None makes each prompt its own.
    """
    return interval(Figure.mean_of(values), kinds) if len(values) else MISSING


def average(values: Sequence[float], kinds: Sequence[str] | None = None) -> Estimate:
    """The mean of values without bounds, such as lengths, with Student's t interval over kinds."""
    from judging.kinds import covariance, kind_codes

    if not len(values):
        return MISSING
    figure, codes_N = Figure.mean_of(values), kind_codes(kinds, len(values))
    num_kinds, method = int(codes_N.max()) + 1, "Student's t over " + ("prompts" if kinds is None else "kinds")
    if num_kinds < 2:
        return Estimate(figure.value, None, None, len(values), method)
    half = _student(num_kinds - 1) * math.sqrt(covariance(figure.influence_N, figure.influence_N, codes_N))
    return Estimate(figure.value, figure.value - half, figure.value + half, len(values), method)


def product_of_means(compliance: Sequence[float], coherence: Sequence[float], kinds: Sequence[str] | None = None) -> Estimate:
    """Mean compliance times mean coherence of the same responses, the kind as the unit."""
    return interval(Figure.product_of(compliance, coherence), kinds) if len(compliance) else MISSING


def of_grades(compliance: Sequence[float], coherence: Sequence[float], kinds: Sequence[str] | None = None) -> dict[str, Estimate]:
    """Compliance, coherence, the study's product and the product of means of the same responses.

    product: the mean over responses of compliance x coherence, as the study's scripts compute it.
    product_of_means: mean compliance times mean coherence, under its own name.
    """
    return {
        "compliance": mean(compliance, kinds),
        "coherence": mean(coherence, kinds),
        PRODUCT: mean([one * other for one, other in zip(compliance, coherence, strict=True)], kinds),
        PRODUCT_OF_MEANS: product_of_means(compliance, coherence, kinds),
    }


def interval(figure: Figure, kinds: Sequence[str] | None) -> Estimate:
    """A figure from 0 to 1 with its interval over kinds. One prompt alone has none."""
    count = len(figure.influence_N)
    method = OVER_PROMPTS if kinds is None else OVER_KINDS
    if (bounds := _bounds(figure, kinds)) is None:
        return Estimate(figure.value, None, None, count, method)
    return Estimate(figure.value, *bounds, count, method)


def difference(first: Figure, second: Figure, kinds: Sequence[str] | None) -> Estimate:
    """One figure less another of the same prompts, with the interval of the method of variance estimates recovery.

    The two intervals are joined with the correlation that the figures have over kinds (Newcombe 1998, method 10; Zou and
    Donner 2008). It has a width where no prompt differs.
    """
    from judging.kinds import covariance, kind_codes

    codes_N, count = kind_codes(kinds, len(first.influence_N)), len(first.influence_N)
    value = first.value - second.value
    one, other = _bounds(first, kinds), _bounds(second, kinds)
    method = DIFFERENCE + ("over prompts" if kinds is None else "over kinds")
    if one is None or other is None:
        return Estimate(value, None, None, count, method)
    both = covariance(first.influence_N, second.influence_N, codes_N)
    spread = math.sqrt(
        covariance(first.influence_N, first.influence_N, codes_N) * covariance(second.influence_N, second.influence_N, codes_N)
    )
    shared = max(-1.0, min(1.0, both / spread)) if spread > 0 else 0.0
    below = joined(first.value - one[0], other[1] - second.value, shared)
    above = joined(one[1] - first.value, second.value - other[0], shared)
    return Estimate(value, value - below, value + above, count, method)


def joined(one: float, other: float, correlation: float = 0.0) -> float:
    """The half width of a difference whose two figures have these half widths."""
    return math.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0))


def wilson(value: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a share `value` of `n` trials, which need not be a whole number."""
    weight = 1 + quantile**2 / n
    centre = (value + quantile**2 / (2 * n)) / weight
    half = quantile / weight * math.sqrt(max(value * (1 - value), 0.0) / n + quantile**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _bounds(figure: Figure, kinds: Sequence[str] | None) -> tuple[float, float] | None:
    from judging.kinds import covariance, kind_codes

    count = len(figure.influence_N)
    codes_N = kind_codes(kinds, count)
    num_kinds = int(codes_N.max()) + 1
    if num_kinds < 2:
        return None
    variance = covariance(figure.influence_N, figure.influence_N, codes_N)
    room = figure.value * (1 - figure.value)
    independent = room / variance if variance > 0 and room > 0 else float(count)
    return wilson(figure.value, independent, _student(num_kinds - 1))


@lru_cache
def _normal() -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + CONFIDENCE) / 2))


@lru_cache
def _student(degrees: int) -> float:
    from scipy.stats import t as student

    return float(student.ppf((1 + CONFIDENCE) / 2, degrees))
