"""Two models on the same documents: a metric's difference with its paired standard error, McNemar's exact test and TOST."""
# N = documents

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from scipy.stats import t as student

from engine.lmeval.equivalence import MARGIN, Spread, equivalence
from engine.runs.schemas import Row
from judging.paired import exact_mcnemar
from judging.statistics import Estimate

Z = 1.959963984540054  # of a 95 % interval


def paired(base: Sequence[float], variant: Sequence[float], margin: float = MARGIN) -> Row:
    """The means `base` and `score`, their difference with the standard error of the paired differences, sd / sqrt(N), and p.

    lm-eval's own standard error is each model's alone: it does not know that the documents are the same. p is McNemar's exact
    test where the metric is 0 or 1, None elsewhere. The difference's interval is of 95 %: for 0 and 1 as Bonett and Price (2012)
    do, whose interval has a width where no document differs, else from the standard error. `tost_p`, `detectable` and
    `verdict` are those of `engine.lmeval.equivalence`, with the same standard error as the interval.
    """
    before_N, after_N = np.asarray(base, dtype=float), np.asarray(variant, dtype=float)
    differences_N = after_N - before_N
    count = len(differences_N)
    error = float(differences_N.std(ddof=1) / math.sqrt(count)) if count > 1 else None
    difference = float(differences_N.mean())
    binary = set(np.unique([before_N, after_N])) <= {0.0, 1.0}
    gained, lost = int((differences_N == 1).sum()), int((differences_N == -1).sum())
    shares = _of_shares(gained, lost, count)
    estimate = asdict(_bonett_price(difference, shares, count) if binary and count > 1 else _student(difference, error, count))
    spread = None if error is None else shares if binary or error == 0 else Spread(difference, error, count - 1)
    return {
        "n": count,
        "base": float(before_N.mean()),
        "score": float(after_N.mean()),
        "difference": estimate,
        "stderr": error,
        "p": exact_mcnemar(before_N == 1, after_N == 1) if binary else None,
        **equivalence(spread, estimate, margin),
    }


def over_tasks(rows: Sequence[Row], margin: float = MARGIN) -> Row:
    """The mean of the tasks' figures, each task counting alike; its standard error from the tasks' own, and its interval from
    theirs (the variance estimates recovered from the limits: Zou and Donner 2008, doi:10.1002/sim.3095)."""
    errors = [row["stderr"] for row in rows]
    error = None if None in errors else math.sqrt(sum(value**2 for value in errors)) / len(rows)
    means = {name: sum(row[name] for row in rows) / len(rows) for name in ("base", "score")}
    differences, count = [row["difference"] for row in rows], sum(row["n"] for row in rows)
    value = sum(one["value"] for one in differences) / len(rows)
    low = high = spread = None
    if error is not None:
        below, above = (math.hypot(*(one[end] - one["value"] for one in differences)) / len(rows) for end in ("low", "high"))
        low, high = value - below, value + above
        spread = Spread(value, max(below, above) / Z)
    difference = asdict(Estimate(value, low, high, count, "Zou and Donner, over tasks"))
    return {"n": count, **means, "difference": difference, "stderr": error, "p": None, **equivalence(spread, difference, margin)}


def _of_shares(gained: int, lost: int, count: int) -> Spread:
    """Centre and error of a difference of paired proportions (doi:10.3102/1076998611411915): one document is added to each way of
    differing, so that there is an error where no document differs."""
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    return Spread(up - down, math.sqrt((up + down - (up - down) ** 2) / (count + 2)))


def _bonett_price(difference: float, spread: Spread, count: int) -> Estimate:
    """The adjusted Wald interval of a difference of paired proportions, from their centre and error."""
    low, high = spread.centre - Z * spread.error, spread.centre + Z * spread.error
    return Estimate(difference, max(-1.0, low), min(1.0, high), count, "Bonett and Price")


def _student(difference: float, error: float | None, count: int) -> Estimate:
    """A mean difference with its interval from the standard error; without one where there is no error."""
    if error is None:
        return Estimate(difference, None, None, count)
    width = float(student.ppf(0.975, count - 1)) * error
    return Estimate(difference, difference - width, difference + width, count, "Student's t")
