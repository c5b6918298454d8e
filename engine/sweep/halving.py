"""Successive halving with intervals: which candidates go on to the next round. Plain functions of grades.

After each round the better half goes on, and of that only what is not behind the leader beyond chance: sign flips over kinds,
corrected (Holm) for the number of candidates, since the leader is the best of many. Rounds double until one is left or prompts
run out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import EngineError
from judging.paired import Grades, holm, product_difference, product_p
from judging.statistics import Estimate

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """A round's decision on one candidate."""

    name: str
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
    half = max(keep, math.ceil(len(ranked) / 2))
    leader = ranked[0]
    tested = [name for name in ranked[1:] if not math.isnan(grades[name].product)]
    p_values = dict(zip(tested, holm([product_p(grades[leader], grades[name]) for name in tested]), strict=True))
    verdicts = []
    for place, name in enumerate(ranked):
        behind = product_difference(grades[leader], grades[name])
        worse = p_values.get(name, 1.0) < LEVEL
        kept = place < keep or (place < half and not worse)
        verdicts.append(Verdict(name, kept, _reason(leader, None if place == 0 else behind, kept=kept, worse=worse)))
    return verdicts


def _reason(leader: str, behind: Estimate | None, *, kept: bool, worse: bool) -> str:
    reason = "goes on" if kept else "behind beyond chance" if worse else "outside the better half, within the noise"
    if behind is None or behind.low is None:
        return reason
    return f"{reason}; behind {leader} by {behind}"


def _rank(grades: Grades) -> float:
    product = grades.product
    return -1.0 if math.isnan(product) else product
