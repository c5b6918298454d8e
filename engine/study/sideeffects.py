"""sideeffects.json: what an edit does beside refusal: eight families of harmless items, by rules, paired.

An item is its own kind: a family has four topics, too few to test by. Holm's correction runs over the families. Equivalence is
two one-sided tests within `margin`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy.stats import t as student

from engine.display.progress import Progress, say
from engine.environment import describe
from engine.errors import EngineError
from engine.lmeval.equivalence import UNKNOWN, Spread, check_margin, equivalence
from engine.rollout.directions import ensure_directions
from engine.rollout.variants import load_variant
from engine.runs.files import DIRECTIONS
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.study.opening import Study
from engine.study.sideeffect_rules import MEASURES, RULES
from judging.kinds import sign_flip_p
from judging.paired import holm
from judging.statistics import Figure, difference, mean

if TYPE_CHECKING:
    from engine.models.variant import Variant

ITEMS = Path(__file__).parent / "sideeffect_items.json"
NOTE = (
    "Rules read every response; unsaid: items that one side's response does not answer. p: sign flips item by item; Holm's over "
    "the families. equivalent: two one-sided tests within the margin. In brackets: 95 % intervals over items."
)
Item = Mapping[str, Any]


def make_sideeffects(study: Study, *, max_tokens: int = 48, margin: float = 0.1) -> Row:
    """Base and variant on every item, in one engine, greedy; a row a family.

    margin: a share within which a difference counts as none. Raises EngineError for a margin that is not between 0 and 1.
    """
    check_margin(margin)
    session = study.session
    items = fitting(session, read_items())
    ensure_directions(study.whole, study.run_dir)
    variant = load_variant(session, study.run_dir.file(DIRECTIONS))
    base, own = (answers(session, one, items, max_tokens) for one in (session.base, variant))
    return {"rows": family_rows(items, base, own, margin), "note": NOTE, "margin": margin, "items": len(items), **describe()}


def read_items() -> list[Item]:
    """Every item: id, family, kind, messages, and what its rule checks."""
    return list(json.loads(ITEMS.read_text(encoding="utf-8")))


def fitting(session: Session, items: Sequence[Item]) -> list[Item]:
    """The items that the model's template has a place for; families that it has none for are named."""
    if session.renderer.takes_system():
        return list(items)
    say("sideeffects: the chat template takes no system prompt, so that family is left out")
    return [item for item in items if item["messages"][0]["role"] != "system"]


def answers(session: Session, variant: "Variant", items: Sequence[Item], max_tokens: int) -> list[str]:
    """One variant's greedy responses, in the order of the items."""
    prompts = [session.renderer.render_messages(item["messages"]) for item in items]
    session.renderer.check_lengths(prompts, session.room_for_prompt, "items")
    sampling = session.config.sampling.model_copy(update={"temperature": 0.0, "samples": 1, "max_tokens": max_tokens})
    replica = session.replica()
    replica.swap(variant)
    found = [""] * len(items)
    with Progress(f"sideeffects {variant.name}", len(items)) as progress:
        for one in replica.generate(prompts, sampling):
            found[one.index] = one.text
            progress.advance(1, len(one.token_ids))
    return found


def family_rows(items: Sequence[Item], base: Sequence[str], variant: Sequence[str], margin: float) -> list[Row]:
    """A row a family: both means, their paired difference, p after Holm, and the verdict within the margin."""
    families = list(dict.fromkeys(item["family"] for item in items))
    if unknown := sorted(set(families) - RULES.keys()):
        raise EngineError(f"There is no rule for the family '{unknown[0]}'; there are {', '.join(RULES)}.")
    rows = []
    for family in families:
        places = [place for place, item in enumerate(items) if item["family"] == family]
        scored = [
            (RULES[family](base[place], items[place]["check"]), RULES[family](variant[place], items[place]["check"]))
            for place in places
        ]
        rows.append({"family": family, "measure": MEASURES[family], **_paired(scored, margin)})
    tested = [row for row in rows if row["p"] is not None]
    for row, corrected in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p, Holm"] = corrected
    return rows


def _paired(scored: Sequence[tuple[float | None, float | None]], margin: float) -> Row:
    """The paired figures of one family, each item by itself."""
    known = [(one, other) for one, other in scored if one is not None and other is not None]
    row: Row = {"n": len(known), "unsaid": len(scored) - len(known), "base": None, "variant": None, "difference": None}
    row |= {"p": None, "p, Holm": None, "verdict": UNKNOWN}
    if len(known) < 2:
        return row
    before, after = [one for one, _ in known], [other for _, other in known]
    change = asdict(difference(Figure.mean_of(after), Figure.mean_of(before), None))
    p = sign_flip_p([late - early for early, late in known], None)
    row |= {"base": asdict(mean(before)), "variant": asdict(mean(after)), "difference": change, "p": p}
    return row | {"verdict": equivalence(_spread(change, len(known)), change, margin)["verdict"]}


def _spread(change: Mapping[str, Any], count: int) -> Spread:
    """How the difference scatters, from its interval, which has a width where no item differs."""
    half = (change["high"] - change["low"]) / 2
    return Spread(change["value"], half / float(student.ppf(0.975, count - 1)), count - 1)
