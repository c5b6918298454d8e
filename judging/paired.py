"""Comparisons of two variants on the same prompts: paired bootstrap, McNemar's exact test, Holm's correction.

A missing grade is NaN; a prompt where either side has none is left out of the comparison.
"""
# N = prompts

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from judging.statistics import MISSING, Estimate, bootstrapped, products

RESAMPLES = 4000
PAIRED = "percentile bootstrap over prompts"


@dataclass(frozen=True)
class Grades:
    """Compliance and coherence of one variant's responses, prompt by prompt, each (N,) with NaN where missing."""

    compliance: np.ndarray
    coherence: np.ndarray

    @staticmethod
    def of(pairs: Sequence[tuple[float | None, float | None]]) -> "Grades":
        """Grades from the (compliance, coherence) of each response."""
        grid = np.array([[np.nan if grade is None else grade for grade in pair] for pair in pairs], dtype=float).reshape(-1, 2)
        return Grades(grid[:, 0], grid[:, 1])

    @property
    def known(self) -> np.ndarray:
        """Mask of the prompts with both grades, (N,) of booleans."""
        return ~(np.isnan(self.compliance) | np.isnan(self.coherence))

    @property
    def product(self) -> float:
        """Mean compliance times mean coherence; NaN where nothing was graded."""
        known = self.known
        return float(self.compliance[known].mean() * self.coherence[known].mean()) if known.any() else float("nan")

    @property
    def successes(self) -> np.ndarray:
        """Mask of the responses that comply fully and read well: both grades 1. (N,) of booleans."""
        return (self.compliance == 1) & (self.coherence == 1)

    def at(self, index: np.ndarray) -> "Grades":
        """Grades of the prompts that `index` picks, a mask or places."""
        return Grades(self.compliance[index], self.coherence[index])


def product_difference(first: Grades, second: Grades) -> Estimate:
    """Difference of the products (first less second) with the percentile interval of the bootstrap over prompts."""
    known = first.known & second.known
    if known.sum() < 2:
        return MISSING
    first, second = first.at(known), second.at(known)
    columns = [first.compliance, first.coherence, second.compliance, second.coherence]

    def difference(*samples: np.ndarray, axis: int) -> np.ndarray:
        return products(*samples[:2], axis=axis) - products(*samples[2:], axis=axis)

    return bootstrapped(columns, difference, resamples=RESAMPLES, method=PAIRED)


def mcnemar_p(first: Grades, second: Grades) -> float:
    """Two-sided exact McNemar test of the share of successes (both grades 1) on the prompts that both answered."""
    known = first.known & second.known
    return exact_mcnemar(first.successes[known], second.successes[known])


def exact_mcnemar(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Two-sided exact McNemar test of two models' successes on the same items, each (N,) of booleans."""
    from statsmodels.stats.contingency_tables import mcnemar

    table = [
        [int((mine & theirs).sum()), int((mine & ~theirs).sum())],
        [int((~mine & theirs).sum()), int((~mine & ~theirs).sum())],
    ]
    return float(mcnemar(table, exact=True).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) over one family of tests, in the order given."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]
