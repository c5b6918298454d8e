"""Several judges on the same labels: how far each two agree, what one calls what the other calls, and whom each puts first.

The rater stands among them as a judge of its own. All are compared on the held-out labels, where the file says which those are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from engine.scoring.labels import Label
from judging import statistics
from judging.agreement import kappa
from judging.judgement import GRADES, Judgement

RATER = "rater"
Record = dict[str, Any]
Opinions = Mapping[str, Sequence[Judgement]]
RATED = {"compliance": GRADES, "declined": (False, True)}


def compare(labels: Sequence[Label], found: Opinions) -> Record:
    """What `bin/judge --calibrate` says of several judges together.

    found: each judge's judgements of the labels, in their order. `pairs`: for every two, on each scale that both give, n, the
    share of equal answers, and Cohen's kappa (quadratic weights for grades); and their outcomes, counted by pair. `ranking`: the
    labelled variants from the highest product down, or from the lowest declined share up where the judge gives no grades.
    """
    opinions = {RATER: [_of_rater(label) for label in labels], **found}
    names = list(opinions)
    pairs = [
        {"judges": [name, other], **_pair(opinions[name], opinions[other])}
        for place, name in enumerate(names)
        for other in names[place + 1 :]
    ]
    return {"n": len(labels), "pairs": pairs, "ranking": {name: ranking(labels, opinions[name]) for name in names}}


def ranking(labels: Sequence[Label], opinion: Sequence[Judgement]) -> list[Record]:
    """Each labelled variant's declined share, compliance and product by one judge, with intervals over kinds; the best first.

    Where no label names a variant, each source's.
    """
    named = any(label.variant for label in labels)
    groups: dict[tuple[str, str], list[tuple[Label, Judgement]]] = {}
    for label, judgement in zip(labels, opinion, strict=True):
        variant = label.variant if named else label.source
        if variant and label.requests in ("", "declined"):
            groups.setdefault((label.model, variant), []).append((label, judgement))
    rows = [{"model": model, "variant": variant, **_rates(group)} for (model, variant), group in groups.items()]
    return sorted(rows, key=_place)


def _place(row: Record) -> tuple[float, float]:
    product, declined = row["product"]["value"], row["declined"]["value"]
    return (0.0 if product is None else -product, 1.0 if declined is None else declined)


def _rates(group: Sequence[tuple[Label, Judgement]]) -> Record:
    said = [(one.declined, label.unit) for label, one in group if one.declined is not None]
    graded = [(one.compliance, one.coherence, label.unit) for label, one in group]
    whole = [(a, b, unit) for a, b, unit in graded if a is not None and b is not None]
    alone = [(a, unit) for a, _, unit in graded if a is not None]
    figures = {
        "declined": statistics.rate([flag for flag, _ in said], [unit for _, unit in said]),
        "compliance": statistics.mean([a for a, _ in alone], [unit for _, unit in alone]),
        "product": statistics.mean([a * b for a, b, _ in whole], [unit for *_, unit in whole]),
    }
    return {"n": len(group), **{name: asdict(figure) for name, figure in figures.items()}}


def _pair(first: Sequence[Judgement], second: Sequence[Judgement]) -> Record:
    found: Record = {}
    for scale, values in RATED.items():
        both = [(getattr(a, scale), getattr(b, scale)) for a, b in zip(first, second, strict=True)]
        known = [(a, b) for a, b in both if a is not None and b is not None]
        mine, theirs = [a for a, _ in known], [b for _, b in known]
        weighted = scale != "declined"
        equal = statistics.share(sum(a == b for a, b in known), len(known))
        found[scale] = {
            "n": len(known),
            "equal": asdict(equal),
            "kappa": kappa(mine, theirs, labels=values, weighted=weighted) if known else None,
        }
    outcomes = Counter((a.outcome, b.outcome) for a, b in zip(first, second, strict=True) if a.outcome and b.outcome)
    return found | {"outcomes": [{"first": a, "second": b, "n": count} for (a, b), count in outcomes.most_common()]}


def _of_rater(label: Label) -> Judgement:
    return Judgement(label.compliance, label.coherence, label.declined, "rater", outcome=label.outcome)
