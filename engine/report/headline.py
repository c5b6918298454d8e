"""The first screen of a run's page: what changed, how sure that is, at what cost, and one chart of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from engine.display.numbers import estimate, p_value
from engine.display.table import Row
from engine.report.chart import Point, dots
from engine.report.collect import RunData

SHOWN = ("declined", "compliance", "coherence", "product")
CONTROLS = {"shuffled": "shuffled labels", "random": "random directions"}


@dataclass(frozen=True)
class Card:
    """A question and sentences that answer it."""

    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Headline:
    """The cards of a run, and its chart as SVG; the chart is "" where nothing was scored."""

    cards: Sequence[Card]
    chart: str


def headline(run: RunData, number: int) -> Headline | None:
    """What a reader wants first of a run or sweep; None where it has no figures yet. `number`: the run's on the page."""
    if not run.summary:
        return None
    base, variants = _confirmed(run) if run.is_sweep else _figures(run)
    if base is None or not variants:
        return None
    first = variants[0]
    cards = [Card("What changed", _changed(base, first)), Card("How sure", _sure(run, first))]
    cards.append(Card("At what cost", _cost(run, base, first)))
    return Headline(cards, _chart([base, *variants], number))


def _figures(run: RunData) -> tuple[Row | None, list[Row]]:
    """A run's base and variants on the requests of the declined kind, by its first judge."""
    judge = run.summary["judges"][0]["name"]
    own = [row for row in run.summary["figures"] if (row["judge"], row["kind"], row["split"]) == (judge, "declined", "test")]
    own = [row for row in own if row.get("condition") == own[0].get("condition")]  # of several the first
    base = next((row for row in own if row["form"] == "base"), None)
    return base, [row for row in own if row["form"] != "base"]


def _confirmed(run: RunData) -> tuple[Row | None, list[Row]]:
    """A sweep's base, its winner and the other finalists, and the best control of each sort."""
    rows = [row for row in run.summary["confirm"] if row["compliance"]["value"] is not None]
    base = next((row for row in rows if row["kind"] == "base"), None)
    found = [row for row in rows if row["kind"] in ("single", "subspace")]
    for kind in CONTROLS:
        drawn = [row for row in rows if row["kind"] == kind]
        found += sorted(drawn, key=lambda row: -(row["product"]["value"] or 0))[:1]
    return base, found


def _changed(base: Row, variant: Row) -> list[str]:
    lines = []
    if variant.get("declined") and base.get("declined"):
        lines.append(f"Declined: {_of(base, 'declined')} of {base['n']} requests before, {_of(variant, 'declined')} after.")
    lines.append(f"Product of compliance and coherence: {_of(base, 'product')} before, {_of(variant, 'product')} after.")
    return [*lines, f"{variant['variant']} is the variant; base is the model as it was."]


def _sure(run: RunData, variant: Row) -> list[str]:
    paired = (variant.get("against_base") or {}).get("product")
    gain = {name: value for name, value in paired.items() if name != "p"} if paired else variant.get("difference")
    p = paired["p"] if paired else variant.get("p_holm")
    lines = [] if gain is None else [f"Product less the base's on the same prompts: {estimate(gain)}, p {p_value(p)}."]
    worth = variant.get("effective_n")
    worth = worth.get("product") if isinstance(worth, dict) else worth
    if variant.get("kinds"):
        told = f"{variant['n']} prompts of {variant['kinds']} kinds"
        lines.append(f"{told}, worth {worth:.0f} independent ones." if worth else f"{told}.")
    else:
        lines.append(f"{variant['n']} prompts; no kinds are named, so near-duplicates count in full.")
    controls = run.summary.get("against_controls", [])
    lines += [
        f"Against {row['n']} control{'s' if row['n'] > 1 else ''} ({CONTROLS[row['kind']]}): p {p_value(row['p'])}."
        for row in controls
    ]
    return lines if controls else [*lines, "No controls: a sweep has them, and bin/ablate."]


def _cost(run: RunData, base: Row, variant: Row) -> list[str]:
    lines = [f"Coherence: {_of(base, 'coherence')} before, {_of(variant, 'coherence')} after."]
    if not run.is_sweep:
        judge = run.summary["judges"][0]["name"]
        other = {row["form"]: row for row in run.summary["figures"] if (row["judge"], row["kind"]) == (judge, "answerable")}
        after = next((row for form, row in other.items() if form != "base"), None)
        if after is not None and "base" in other:
            lines.append(
                f"Requests that anyone would answer, compliance: {_of(other['base'], 'compliance')} before, "
                f"{_of(after, 'compliance')} after."
            )
    for found in run.studies.get("behaviour", {}).get("kl", [])[:1]:
        lines.append(f"KL from the base along whole responses: {estimate(found['per_token'])} nats a token.")
    for row in run.studies.get("bench", {}).get("mean", [])[:1]:
        lines.append(f"Ability, mean of lm-eval's tasks: {estimate(row['difference'])} ({row['verdict']}).")
    return lines if len(lines) > 1 else [*lines, "Ability: not measured; bin/bench does."]


def _of(row: Row, name: str) -> str:
    return estimate(row[name], 2)


def _chart(rows: Sequence[Row], number: int) -> str:
    """A point for each figure of each variant, figure by figure, as they are compared; each leads to its responses."""
    points = []
    for name in SHOWN:
        for place, row in enumerate(rows):
            if row.get(name):
                shown = f"#run={number}&kind=declined&variant={quote(str(row['variant']))}"
                points.append(Point(f"{name}: {row['variant']}", row[name], min(place, 4), shown, group=name))
    series = [str(row["variant"]) for row in rows[:4]] + (["others"] if len(rows) > 4 else [])
    return dots(points, series, "Declined share, compliance, coherence and product, each with its 95 % interval")
