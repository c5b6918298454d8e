"""Two models on the same documents: the difference of a metric with its paired standard error, and McNemar's exact test."""
# N = documents

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from scipy.stats import t as student

from engine.runs.schemas import Row
from judging.paired import exact_mcnemar
from judging.statistics import Estimate

Z = 1.959963984540054  # of a 95 % interval


def paired(base: Sequence[float], variant: Sequence[float]) -> Row:
    """The means `base` and `score`, their difference with the standard error of the paired differences, sd / sqrt(N), and p.

    lm-eval's own standard error is each model's alone: it does not know that the documents are the same. p is McNemar's exact
    test where the metric is 0 or 1, None elsewhere. The difference's interval is of 95 %: for 0 and 1 as Bonett and
    Price (2012) do, whose interval has a width where no document differs, else from the standard error.
    """
    before_N, after_N = np.asarray(base, dtype=float), np.asarray(variant, dtype=float)
    differences_N = after_N - before_N
    count = len(differences_N)
    error = float(differences_N.std(ddof=1) / math.sqrt(count)) if count > 1 else None
    difference = float(differences_N.mean())
    binary = set(np.unique([before_N, after_N])) <= {0.0, 1.0}
    gained, lost = int((differences_N == 1).sum()), int((differences_N == -1).sum())
    return {
        "n": count,
        "base": float(before_N.mean()),
        "score": float(after_N.mean()),
        "difference": asdict(
            _bonett_price(difference, gained, lost, count) if binary and count > 1 else _student(difference, error, count)
        ),
        "stderr": error,
        "p": exact_mcnemar(before_N == 1, after_N == 1) if binary else None,
    }


def over_tasks(rows: Sequence[Row]) -> Row:
    """The mean of the tasks' figures, each task counting alike; its standard error from the tasks' own, and its interval from
    theirs (the variance estimates recovered from the limits: Zou and Donner 2008, doi:10.1002/sim.3095)."""
    errors = [row["stderr"] for row in rows]
    error = None if None in errors else math.sqrt(sum(value**2 for value in errors)) / len(rows)
    means = {name: sum(row[name] for row in rows) / len(rows) for name in ("base", "score")}
    differences, count = [row["difference"] for row in rows], sum(row["n"] for row in rows)
    value = sum(one["value"] for one in differences) / len(rows)
    low = high = None
    if error is not None:
        below, above = (math.hypot(*(one[end] - one["value"] for one in differences)) / len(rows) for end in ("low", "high"))
        low, high = value - below, value + above
    difference = asdict(Estimate(value, low, high, count, "Zou and Donner, over tasks"))
    return {"n": count, **means, "difference": difference, "stderr": error, "p": None}


def _bonett_price(difference: float, gained: int, lost: int, count: int) -> Estimate:
    """The adjusted Wald interval of a difference of paired proportions (doi:10.3102/1076998611411915): one document is added to
    each way of differing."""
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    error = math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return Estimate(difference, max(-1.0, up - down - Z * error), min(1.0, up - down + Z * error), count, "Bonett and Price")


def _student(difference: float, error: float | None, count: int) -> Estimate:
    """A mean difference with its interval from the standard error; without one where there is no error."""
    if error is None:
        return Estimate(difference, None, None, count)
    width = float(student.ppf(0.975, count - 1)) * error
    return Estimate(difference, difference - width, difference + width, count, "Student's t")
