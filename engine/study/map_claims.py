"""What a map says of the two published claims, from declined flags alone: "distinct directions" and "one knob".

Distinct: templates dealt to two kinds give a cosine as low as theirs in fewer than one of 20 deals, corrected over all pairs.
One knob: removing another kind's direction ends declining nearly as removing its own does, and more than random ones do.
"""
# N = test prompts of a kind

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from engine.runs.schemas import Row
from extraction.kinds import Kinds, expanded_tail
from judging.kinds import sign_flip_p
from judging.paired import holm
from judging.statistics import Figure, difference

LEVEL, ENOUGH = 0.05, 0.5
RESAMPLES, SEED = 2000, 0
SOME = 0.1  # of declining that a kind's own direction must end, for a share of it to mean anything
ONE_KNOB, OWN_KNOBS, UNKNOWN = "one knob", "knobs of their own", "cannot tell"
DISTINCT, PARTLY, ONE_DIRECTION = "distinct", "partly distinct", "not told apart"


@dataclass(frozen=True)
class Column:
    """Test prompts of one kind: whether each is declined by the base, under each kind's removal, and under random ones.

    flags are 0 or 1, (N,). by_kind: by the name of the kind whose direction is removed.
    """

    name: str
    templates: Sequence[str]
    base: np.ndarray
    by_kind: Mapping[str, np.ndarray]
    random: Sequence[np.ndarray]

    @property
    def own(self) -> np.ndarray:
        """How much less each prompt is declined under its own kind's removal, (N,)."""
        return self.base - self.by_kind[self.name]

    @property
    def others(self) -> np.ndarray:
        """The same under the other kinds' removals, their mean, (N,)."""
        return self.base - np.mean([flags for name, flags in self.by_kind.items() if name != self.name], axis=0)

    @property
    def drawn(self) -> np.ndarray:
        """The same under the random directions' removals, their mean, (N,)."""
        return self.base - np.mean(self.random, axis=0)


def drops(columns: Sequence[Column]) -> list[Row]:
    """For each removed kind and each kind watched: the declined share less the base's, its interval and p (Holm over all)."""
    rows: list[Row] = [
        {"removed": name, "watched": column.name} | _drop(flags, column)
        for column in columns
        for name, flags in column.by_kind.items()
    ]
    corrected = holm([row["p"] for row in rows])
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]


def _drop(flags: np.ndarray, column: Column) -> Row:
    mine, theirs = flags.tolist(), column.base.tolist()
    found = difference(Figure.mean_of(mine), Figure.mean_of(theirs), column.templates)
    return {"difference": asdict(found), "p": sign_flip_p((flags - column.base).tolist(), column.templates)}


def knob_claim(columns: Sequence[Column]) -> Row:
    """Is declining one knob? The drop by other kinds' directions as a share of the drop by a kind's own, over all columns.

    share: [value, low, high] by drawing templates within columns; random: the same of random directions. p_others: of the
    others' drop equal to the random ones'; p_own: of the own drop equal to the others'; sign flips of whole templates.
    """
    own = float(np.mean([column.own.mean() for column in columns]))
    if len(columns) < 2 or own < SOME:
        few = (
            "fewer than two kinds are declined" if len(columns) < 2 else "a kind's own direction ends too little of its declining"
        )
        return {"answer": UNKNOWN, "reason": few, "own_drop": own, "share": None, "random": None, "p_others": None, "p_own": None}
    shares = _shares(columns, "others")
    p_others = _p([column.others - column.drawn for column in columns], columns)
    p_own = _p([column.own - column.others for column in columns], columns)
    beats = p_others < LEVEL and float(np.mean([(column.others - column.drawn).mean() for column in columns])) > 0
    answer = ONE_KNOB if beats and shares[1] >= ENOUGH else OWN_KNOBS if shares[2] < ENOUGH else UNKNOWN
    found: Row = {"answer": answer, "reason": "", "own_drop": own, "share": shares, "random": _shares(columns, "drawn")}
    return found | {"p_others": p_others, "p_own": p_own}


def distinct_claim(names: Sequence[str], cosines: Sequence[Sequence[Sequence[float]]], p: Sequence[Sequence[float]]) -> Row:
    """Which of the kinds' directions differ: p of every two, corrected by Holm."""
    places = [(one, other) for one in range(len(names)) for other in range(one)]
    corrected = holm([p[one][other] for one, other in places]) if places else []
    pairs: list[Row] = [
        {"kinds": [names[other], names[one]], "cosine": list(cosines[one][other]), "p": p[one][other], "p_holm": value}
        for (one, other), value in zip(places, corrected, strict=True)
    ]
    apart = sum(pair["p_holm"] < LEVEL for pair in pairs)
    answer = UNKNOWN if not pairs else DISTINCT if apart == len(pairs) else PARTLY if apart else ONE_DIRECTION
    return {"answer": answer, "apart": apart, "pairs": pairs}


def _p(values: Sequence[np.ndarray], columns: Sequence[Column]) -> float:
    """Two-sided p of a mean of 0, templates of all columns changing sign whole."""
    kinds = [f"{column.name} {template}" for column in columns for template in column.templates]
    return sign_flip_p(np.concatenate(values).tolist(), kinds)


def _shares(columns: Sequence[Column], name: str) -> list[float]:
    """A drop as a share of the own drop, [value, low, high]: templates are drawn within each column."""
    rng = np.random.default_rng(SEED)
    above_R, below_R = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for column in columns:
        units = Kinds.of(column.templates, len(column.base))
        drawn_RG = units.drawn(RESAMPLES, rng)
        counts_R = drawn_RG @ units.sizes_G
        above_R += drawn_RG @ units.sums(getattr(column, name)) / counts_R
        below_R += drawn_RG @ units.sums(column.own) / counts_R
    known = below_R > 0
    tail = expanded_tail(sum(Kinds.of(column.templates, len(column.base)).count for column in columns))
    low, high = np.quantile(above_R[known] / below_R[known], [tail, 1 - tail])
    value = sum(getattr(column, name).mean() for column in columns) / sum(column.own.mean() for column in columns)
    return [float(value), float(min(low, value)), float(max(high, value))]
