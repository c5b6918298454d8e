"""Agreement between judges, and of a judge with itself: Cohen's kappa, Krippendorff's alpha for ordinal grades, tables.

Ratings come as {response: {"compliance": 0.5, "coherence": 1.0, "declined": False}}. A missing grade is None and left out.
"""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from judging.judgement import GRADES

SCALES = ("compliance", "coherence")
Ratings = Mapping[Any, Mapping[str, Any]]


def of_two(first: Ratings, second: Ratings) -> dict[str, Any]:
    """Agreement of two judges on each scale, over the responses that both graded.

    exact: share of equal grades. kappa: Cohen's (1960). weighted_kappa: with quadratic weights (Cohen 1968). alpha:
    Krippendorff's for ordinal data. table: rows the first judge's grades 0, 0.5, 1, columns the second's.
    """
    shared = [key for key in first if key in second]
    return {scale: _pair(*_both(first, second, shared, scale)) for scale in SCALES}


def of_repeats(repeats: Sequence[Ratings]) -> dict[str, Any]:
    """A judge's agreement with itself over repeats, on each scale.

    unanimous: share of responses graded alike every time. standard_deviation: within a response. alpha: Krippendorff's, ordinal.
    """
    return {scale: _own(repeats, scale) for scale in SCALES}


def kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], *, labels: Sequence[Hashable], weighted: bool = False
) -> float | None:
    """Cohen's kappa of two raters; None where it is not defined, since both used one label.

    weighted: quadratic weights by the order of `labels`.
    """
    if len({*first, *second}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        places = [[list(labels).index(value) for value in ratings] for ratings in (first, second)]
        value = cohen_kappa_score(*places, labels=list(range(len(labels))), weights="quadratic" if weighted else None)
    return None if value != value else float(value)


def ordinal_alpha(ratings: Sequence[Sequence[float | None]]) -> float | None:
    """Krippendorff's alpha for ordinal data (2004); None where it is not defined.

    ratings: raters by units, None for a missing rating.
    """
    import krippendorff
    import numpy as np

    data = np.array([[np.nan if value is None else value for value in rater] for rater in ratings], dtype=float)
    paired = data[:, (~np.isnan(data)).sum(axis=0) > 1]  # a unit with one rating says nothing of agreement
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=paired, level_of_measurement="ordinal", value_domain=list(GRADES)))


def table_of(first: Sequence[float], second: Sequence[float]) -> list[list[int]]:
    """Counts of pairs of grades: rows the first's grades 0, 0.5, 1, columns the second's."""
    pairs = list(zip(first, second, strict=True))
    return [[pairs.count((row, column)) for column in GRADES] for row in GRADES]


def _both(first: Ratings, second: Ratings, keys: Sequence[Any], scale: str) -> tuple[list[float], list[float]]:
    pairs = [(first[key][scale], second[key][scale]) for key in keys]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return [a for a, _ in known], [b for _, b in known]


def _pair(first: list[float], second: list[float]) -> dict[str, Any]:
    same = sum(a == b for a, b in zip(first, second, strict=True))
    return {
        "n": len(first),
        "exact": same / len(first) if first else None,
        "kappa": kappa(first, second, labels=GRADES),
        "weighted_kappa": kappa(first, second, labels=GRADES, weighted=True),
        "alpha": ordinal_alpha([first, second]) if first else None,
        "table": table_of(first, second),
    }


def _own(repeats: Sequence[Ratings], scale: str) -> dict[str, Any]:
    import numpy as np

    keys = list(repeats[0])
    grid = [[ratings[key][scale] if key in ratings else None for key in keys] for ratings in repeats]
    known = [[value for value in column if value is not None] for column in zip(*grid, strict=True)]
    several = [column for column in known if len(column) > 1]
    return {
        "n": len(several),
        "repeats": len(repeats),
        "unanimous": sum(len(set(column)) == 1 for column in several) / len(several) if several else None,
        "standard_deviation": float(np.sqrt(np.mean([np.var(column, ddof=1) for column in several]))) if several else None,
        "alpha": ordinal_alpha(grid),
    }
