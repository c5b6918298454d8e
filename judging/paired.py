"""Comparisons of two variants on the same prompts, the kind as the unit: differences, sign-flip tests, Holm's correction.

A missing grade is NaN; a prompt where either side has none is left out of the comparison.
"""
# N = prompts

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from judging.kinds import sign_flip_p
from judging.statistics import MISSING, Estimate, Figure, difference, of_grades


@dataclass(frozen=True)
class Grades:
    """Compliance and coherence of one variant's responses, prompt by prompt, each (N,) with NaN where missing.

    kinds: the prompts' kinds; None where each prompt is its own.
    """

    compliance: np.ndarray
    coherence: np.ndarray
    kinds: tuple[str, ...] | None = None

    @staticmethod
    def of(pairs: Sequence[tuple[float | None, float | None]], kinds: Sequence[str] | None = None) -> "Grades":
        """Grades from the (compliance, coherence) of each response."""
        grid = np.array([[np.nan if grade is None else grade for grade in pair] for pair in pairs], dtype=float).reshape(-1, 2)
        return Grades(grid[:, 0], grid[:, 1], None if kinds is None else tuple(kinds))

    @property
    def known(self) -> np.ndarray:
        """Mask of the prompts with both grades, (N,) of booleans."""
        return ~(np.isnan(self.compliance) | np.isnan(self.coherence))

    @property
    def products(self) -> np.ndarray:
        """Compliance x coherence of each response, (N,); NaN where a grade is missing."""
        return self.compliance * self.coherence

    @property
    def product(self) -> float:
        """The study's product: the mean over responses of compliance x coherence; NaN where nothing was graded."""
        known = self.known
        return float(self.products[known].mean()) if known.any() else float("nan")

    @property
    def successes(self) -> np.ndarray:
        """Mask of the responses that comply fully and read well: both grades 1. (N,) of booleans."""
        return (self.compliance == 1) & (self.coherence == 1)

    def at(self, index: np.ndarray) -> "Grades":
        """Grades of the prompts that a mask picks."""
        kinds = None if self.kinds is None else tuple(kind for kind, kept in zip(self.kinds, index, strict=True) if kept)
        return Grades(self.compliance[index], self.coherence[index], kinds)

    def estimates(self) -> dict[str, Estimate]:
        """Compliance, coherence, product and product_of_means of what was graded, with intervals over kinds."""
        graded = self.at(self.known)
        return of_grades(graded.compliance.tolist(), graded.coherence.tolist(), graded.kinds)


def product_difference(first: Grades, second: Grades) -> Estimate:
    """Difference of the products (first less second) with its interval over kinds."""
    first, second = _both(first, second)
    if len(first.compliance) < 2:
        return MISSING
    return difference(Figure.mean_of(first.products.tolist()), Figure.mean_of(second.products.tolist()), first.kinds)


def product_p(first: Grades, second: Grades) -> float:
    """Two-sided p of equal products: the differences change sign kind by kind (`sign_flip_p`)."""
    first, second = _both(first, second)
    return sign_flip_p((first.products - second.products).tolist(), first.kinds)


def mcnemar_p(first: Grades, second: Grades) -> float:
    """Two-sided exact McNemar test of the share of successes (both grades 1), each prompt by itself."""
    first, second = _both(first, second)
    return exact_mcnemar(first.successes, second.successes)


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
    ascending = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=float)[ascending] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[ascending] = np.minimum(np.maximum.accumulate(steps), 1.0)  # statsmodels' collects garbage with each call
    return [float(p) for p in corrected]


def _both(first: Grades, second: Grades) -> tuple[Grades, Grades]:
    """The prompts that both have grades of."""
    known = first.known & second.known
    return first.at(known), second.at(known)
