"""A judge's error rates against human labels, and shares corrected for those errors.

Grades come in pairs, the human's and the judge's. Where either is None the pair is counted as missing and left out.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from judging.agreement import kappa, table_of
from judging.judgement import GRADES
from judging.statistics import CONFIDENCE, MISSING, Estimate, share

CORRECTED = "Rogan-Gladen, interval of Lang and Reiczigel"


def grade_rates(human: Sequence[float | None], judge: Sequence[float | None]) -> dict[str, Any]:
    """A judge's error rates on one scale: accuracy, kappas, a table, and errors grade by grade.

    The table has the human's grades 0, 0.5, 1 in rows and the judge's in columns. A false positive of a grade is given where
    the human gave another. A false negative is not given where the human gave it.
    """
    first, second = _known(human, judge)
    return {
        **_counts(human, first, second),
        "kappa": kappa(first, second, labels=GRADES) if first else None,
        "weighted_kappa": kappa(first, second, labels=GRADES, weighted=True) if first else None,
        "table": table_of(first, second),
        "grades": {f"{grade:g}": _errors([a == grade for a in first], [b == grade for b in second]) for grade in GRADES},
    }


def yes_no_rates(human: Sequence[bool | None], judge: Sequence[bool | None]) -> dict[str, Any]:
    """A judge's error rates on a yes-or-no question: accuracy, kappa, false positives and false negatives."""
    first, second = _known(human, judge)
    return {
        **_counts(human, first, second),
        "kappa": kappa(first, second, labels=[False, True]) if first else None,
        **_errors(first, second),
    }


def corrected_share(share_seen: float, n: int, rates: dict[str, Any]) -> Estimate:
    """A share of n responses, corrected for a judge's errors.

    rates: of `yes_no_rates`, or of one grade of `grade_rates`.

    The formula is Rogan and Gladen's (1978): (seen + specificity - 1) / (sensitivity + specificity - 1), cut to 0..1. The
    interval is Lang and Reiczigel's (2014), which knows that sensitivity and specificity were estimated too.

    MISSING where the judge is no better than chance on the labels, and where they hold no positive or no negative. MISSING
    too where the whole interval lies outside 0..1: no true share could have given what was seen. Then the labels are of
    other responses than these.
    """
    num_positive, num_negative = rates["positives"], rates["negatives"]
    if n == 0 or num_positive == 0 or num_negative == 0:
        return MISSING
    sensitivity = 1 - rates["false_negative"]["value"]
    specificity = 1 - rates["false_positive"]["value"]
    if sensitivity + specificity <= 1:
        return MISSING
    value = (share_seen + specificity - 1) / (sensitivity + specificity - 1)
    low, high = _interval(share_seen, n, sensitivity, num_positive, specificity, num_negative)
    if low > 1 or high < 0:
        return MISSING
    return Estimate(_cut(value), _cut(low), _cut(high), n, CORRECTED)


def _interval(
    seen: float, n: int, sensitivity: float, num_positive: int, specificity: float, num_negative: int
) -> tuple[float, float]:
    from scipy.stats import norm

    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    weight, positives, negatives = n + z**2, num_positive + 2, num_negative + 2
    apparent = (n * seen + z**2 / 2) / weight
    sensitivity = (num_positive * sensitivity + 1) / positives
    specificity = (num_negative * specificity + 1) / negatives
    youden = sensitivity + specificity - 1
    if youden <= 0:
        return 0.0, 1.0
    true = (apparent + specificity - 1) / youden
    of_sensitivity = sensitivity * (1 - sensitivity) / positives
    of_specificity = specificity * (1 - specificity) / negatives
    shift = 2 * z**2 * (true * of_sensitivity - (1 - true) * of_specificity)
    spread = apparent * (1 - apparent) / weight + true**2 * of_sensitivity + (1 - true) ** 2 * of_specificity
    half = z * math.sqrt(spread) / youden
    return true + shift - half, true + shift + half


def _errors(human: Sequence[bool], judge: Sequence[bool]) -> dict[str, Any]:
    false_positives = sum(b and not a for a, b in zip(human, judge, strict=True))
    false_negatives = sum(a and not b for a, b in zip(human, judge, strict=True))
    positives = sum(human)
    return {
        "positives": positives,
        "negatives": len(human) - positives,
        "false_positive": asdict(share(false_positives, len(human) - positives)),
        "false_negative": asdict(share(false_negatives, positives)),
    }


def _counts(human: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> dict[str, Any]:
    same = sum(a == b for a, b in zip(first, second, strict=True))
    missing = sum(value is not None for value in human) - len(first)
    return {"n": len(first), "missing": missing, "accuracy": asdict(share(same, len(first)))}


def _known(human: Sequence[Any], judge: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Both sides of the pairs in which neither is None."""
    pairs = [(a, b) for a, b in zip(human, judge, strict=True) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _cut(value: float) -> float:
    return min(max(value, 0.0), 1.0)
