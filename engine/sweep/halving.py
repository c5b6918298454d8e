"""Successive halving with intervals: which candidates go on to the next round. Plain functions of grades.

A candidate leaves when it is outside the better half and, on the prompts so far, distinguishably worse than the leader
(95 % interval of the paired difference below 0). So noise alone drops nobody, and rounds double until prompts run out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import EngineError
from judging.paired import Grades, product_difference


@dataclass(frozen=True)
class Verdict:
    """What a round decided of one candidate."""

    name: str
    product: float
    kept: bool
    reason: str


def rounds(first: int, total: int) -> list[int]:
    """Number of prompts after each round: `first`, doubled until `total`. Raises EngineError where `first` is too many."""
    if first > total:
        raise EngineError(
            f"A halving round needs {first} selection prompts (sweep.first_round) and there are {total}. Give more, or lower it."
        )
    sizes = [first]
    while sizes[-1] < total:
        sizes.append(min(2 * sizes[-1], total))
    return sizes


def judge_round(grades: Mapping[str, Grades], *, keep: int) -> list[Verdict]:
    """Every candidate's verdict, best first. At least `keep` of them go on."""
    ranked = sorted(grades, key=lambda name: (-_rank(grades[name]), name))
    stay = max(keep, math.ceil(len(ranked) / 2))
    leader = ranked[0]
    verdicts = []
    for place, name in enumerate(ranked):
        behind = product_difference(grades[name], grades[leader])
        reason = "in the better half" if place < stay else "not distinguishable from the leader"
        kept = place < stay or behind.high is None or behind.high >= 0
        if not kept:
            reason = f"behind the leader by {-(behind.value or 0):.3f} [{-(behind.high or 0):.3f}, {-(behind.low or 0):.3f}]"
        verdicts.append(Verdict(name, grades[name].product, kept, reason))
    return verdicts


def _rank(grades: Grades) -> float:
    product = grades.product
    return -1.0 if math.isnan(product) else product
