"""What bin/map found, as tables and sentences: what the base declines, the k x k table, cosines, readings, the two claims."""

from collections.abc import Sequence

from engine.display.numbers import estimate, number, p_value
from engine.display.table import Row, Table, View

TOLD = {"asked": "declined requests from their twins", "done": "declined from answered requests"}


def map_view(found: Row) -> View:
    """What the command prints."""
    return [*tables_of(found), *map_sentences(found)]


def tables_of(found: Row) -> list[Table]:
    """Every table of a map."""
    return [kinds_table(found), removal_table(found), cosine_table(found), reading_table(found)]


def named(name: str) -> str:
    """A kind's name as words."""
    return name.replace("_", " ")


def kinds_table(found: Row) -> Table:
    """What the base declines of each kind and its twins, and whether the kind is in the map."""
    rows = [
        [
            named(name),
            *(estimate(row[split][side], 2) for split in ("selection", "test") for side in ("declined", "answerable")),
            "yes" if row["in_map"] else "no",
        ]
        for name, row in found["kinds"].items()
    ]
    columns = ["kind", "selection: declined", "twins", "test: declined", "twins", "in the map"]
    note = (
        f"In the map: kinds of whose selection requests the base declines at least {found['least']:.0%}, and of their twins at "
        "most half that share. Intervals are over templates."
    )
    return Table("What the base declines, by kind of refusal", columns, rows, [note])


def removal_table(found: Row) -> Table:
    """Remove the row's direction, watch declining in the column."""
    kinds = found["mapped"]
    rows = [
        [
            named(row["removed"]),
            str(row["k"]),
            number(row["of_mean"]),
            *(estimate(row["declined"][name], 2) for name in kinds),
            estimate(row["coherence"], 2),
        ]
        for row in found["table"]
    ]
    band = found["random_band"]
    notes = [
        f"Declined share of test requests, layer {found['layer']}, position {found['position']}, {named(found['estimator'])}. k: "
        "dimensions removed. Of the mean: how much of the streams' own mean direction a removal takes."
    ]
    if band:
        spans = ", ".join(f"{named(name)} {low:.2f} to {high:.2f}" for name, (low, high) in band.items())
        notes.append(f"Random directions: {spans}.")
    return Table(
        "Remove the row, watch the column", ["removed", "k", "of the mean", *map(named, kinds), "coherence"], rows, notes
    )


def cosine_table(found: Row) -> Table:
    """Noise-free cosines of every two kinds, and what each has for itself."""
    kinds, between = found["mapped"], found["between"]
    rows = [
        [
            named(name),
            *(_triple(between["cosines"][place][other]) if other != place else "1" for other in range(len(kinds))),
            number(between["own"][place]),
            number(between["reliability"][place]),
        ]
        for place, name in enumerate(kinds)
    ]
    shares = ", ".join(f"{share:.2f}" for share in between["spectrum"])
    notes = [
        f"Own: share of the squared direction outside the others' span. Signal: share of it that is no noise. Components of the "
        f"unit directions: {shares}; {between['dimensions']} hold 90 %."
    ]
    return Table(
        f"Cosines between kinds without the noise of few pairs, layer {found['layer']}",
        ["kind", *map(named, kinds), "own", "signal"],
        rows,
        notes,
    )


def reading_table(found: Row) -> Table:
    """AUROC of each kind's direction on its own test pairs."""
    positions = list(next(iter(found["reading"].values())))
    rows = [
        [named(name), *(estimate(parts[position][what], 2) for what in TOLD for position in positions)]
        for name, parts in found["reading"].items()
    ]
    columns = ["kind", *(f"{what}, at {position}" for what in TOLD for position in positions)]
    told = "; ".join(f"{what}: tells {meaning}" for what, meaning in TOLD.items())
    return Table(f"What each kind's direction reads, layer {found['layer']}, AUROC", columns, rows, [f"{told}."])


def map_sentences(found: Row) -> list[str]:
    """The two published claims for this model, and what is left out."""
    left = [named(name) for name, row in found["kinds"].items() if not row["in_map"]]
    lines = [f"Left out, since the base does not decline them or declines their twins too: {', '.join(left)}."] if left else []
    return [*lines, distinct_sentence(found["claims"]["distinct"]), knob_sentence(found["claims"]["knob"])]


def distinct_sentence(claim: Row) -> str:
    """Whether the kinds' directions differ."""
    count = len(claim["pairs"])
    if not count:
        return "Distinct directions: cannot tell, one kind alone is declined."
    lowest = min(claim["pairs"], key=lambda pair: pair["cosine"][0])
    kinds = " and ".join(map(named, lowest["kinds"]))
    return (
        f"Distinct directions: {claim['answer']}. {claim['apart']} of {count} pairs of kinds have a lower cosine than templates "
        f"dealt at random give (p below 0.05, Holm); the lowest is {_triple(lowest['cosine'])} ({kinds}, p "
        f"{p_value(lowest['p_holm'])})."
    )


def knob_sentence(claim: Row) -> str:
    """Whether declining is one knob."""
    if claim["share"] is None:
        return f"One knob: cannot tell, {claim['reason']} (own drop {number(claim['own_drop'])})."
    return (
        f"One knob: {claim['answer']}. Another kind's direction takes {_triple(claim['share'])} of what a kind's own takes from "
        f"declining ({number(claim['own_drop'])}); random ones take {_triple(claim['random'])}. p of others equal to random "
        f"{p_value(claim['p_others'])}, of own equal to others {p_value(claim['p_own'])}."
    )


def _triple(values: Sequence[float | None]) -> str:
    value, low, high = (float("nan") if part is None else part for part in values)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
