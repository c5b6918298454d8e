"""Rates and means with 95 % intervals: Wilson for shares, percentile bootstrap over responses for means and products."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Statistic = Callable[..., Any]
CONFIDENCE = 0.95
RESAMPLES = 5000
NUMBERS_AT_ONCE = 10_000_000  # of resampled values held in memory
SEED = 0
WILSON, BOOTSTRAP = "Wilson score", "percentile bootstrap over responses"


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


def share(successes: int, total: int) -> Estimate:
    """A share with Wilson's score interval (Wilson 1927; statsmodels' `proportion_confint`)."""
    if total == 0:
        return MISSING
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, total, alpha=1 - CONFIDENCE, method="wilson")
    return Estimate(successes / total, float(low), float(high), total, WILSON)


def mean(values: Sequence[float]) -> Estimate:
    """A mean with the percentile bootstrap's interval."""
    return product_of_means([values])


def of_grades(compliance: Sequence[float], coherence: Sequence[float]) -> dict[str, Estimate]:
    """Compliance, coherence and product of the same responses, each with its interval."""
    both = product_of_means([compliance, coherence])
    return {"compliance": mean(compliance), "coherence": mean(coherence), "product": both}


def product_of_means(columns: Sequence[Sequence[float]]) -> Estimate:
    """The product of the columns' means, with the percentile bootstrap's interval; of one column, its mean.

    Rows are resampled whole, so columns are paired by response. One response alone has a value and no interval.
    """
    if not columns[0]:
        return MISSING
    if len(columns[0]) == 1:
        return Estimate(math.prod(float(column[0]) for column in columns), None, None, 1, BOOTSTRAP)
    return bootstrapped(columns, products, resamples=RESAMPLES, method=BOOTSTRAP)


def products(*samples: "np.ndarray", axis: int) -> "np.ndarray":
    """The product of the samples' means along an axis."""
    return math.prod(sample.mean(axis=axis) for sample in samples)


def bootstrapped(columns: Sequence[Any], statistic: Statistic, *, resamples: int, method: str) -> Estimate:
    """A statistic of columns with the percentile bootstrap's interval (Efron 1979; scipy's `bootstrap`).

    Rows are resampled whole. `statistic` takes the columns and an axis. Needs two rows or more.
    """
    import numpy as np
    from scipy.stats import bootstrap

    interval = bootstrap(
        columns,
        statistic,
        paired=len(columns) > 1,
        n_resamples=resamples,
        batch=max(NUMBERS_AT_ONCE // len(columns[0]), 1),
        method="percentile",
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    value = statistic(*[np.asarray(column) for column in columns], axis=0)
    return Estimate(float(value), float(interval.low), float(interval.high), len(columns[0]), method)
