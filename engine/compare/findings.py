"""compare.json of what was measured and looked at: a row a member, its claims, its tensors, and angles between edits."""
# L = layers, H = hidden size

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from editing.forensics import Forensics, angles, inside
from engine.compare.claims import Claim, against
from engine.compare.integrity import problems_of
from engine.compare.members import BASE, Member
from engine.environment import describe
from engine.runs import parquet
from engine.runs.files import ROLLOUTS
from engine.runs.requests import ANSWERABLE, DECLINED
from engine.runs.run_dir import RunDir
from engine.runs.schemas import Row
from engine.study.behaviour import length_figures
from judging.statistics import average

if TYPE_CHECKING:
    from torch import Tensor

DIVERGENCE = "divergence.parquet"
NOTE = (
    "KL: base against member along responses that the base samples at temperature 1, nats. taken away: share of W removed along "
    "the change's own directions. rank: effective rank of a tensor's change, the median. In brackets: 95 % intervals over kinds."
)


def find(
    members: Sequence[Member], looked: Mapping[str, Forensics], units_LH: "Tensor | None", summary: Row, run_dir: RunDir
) -> Row:
    """Everything that compare.json holds beside its head."""
    rows = parquet.read_rows(run_dir.file(ROLLOUTS))
    diverged = parquet.read_rows(run_dir.file(DIVERGENCE))
    measured = {BASE: _measured(BASE, None, summary, rows, [])}
    for member in members:
        own = [row for row in diverged if row["variant_hash"] == member.variant.hash]
        measured[member.name] = _measured(member.name, member.variant.hash, summary, rows, own)
    return {
        "judge": summary["judges"][0]["name"],
        "rows": [{"variant": BASE, "edit": "-", **measured[BASE], "problems": "-"}]
        + [_row(member, looked[member.name], measured[member.name]) for member in members],
        "note": NOTE,
        "claims": [_claim(member, claim, measured[member.name]) for member in members for claim in member.claims],
        "angles": _angles(looked),
        "directions": [] if units_LH is None else [_along(*one, units_LH) for one in looked.items() if one[1].space_HK.shape[1]],
        "members": {member.name: _details(member, looked[member.name]) for member in members},
        **describe(),
    }


def _row(member: Member, looked: Forensics, measured: Row) -> Row:
    matrices = [change for change in looked.changes if change.effective_rank is not None]
    ranks = sorted(change.effective_rank or 0.0 for change in matrices)
    removed = sorted(change.removed for change in matrices if change.removed is not None)
    return {
        "variant": member.name,
        "edit": looked.looks_like,
        **measured,
        "rank": ranks[len(ranks) // 2] if ranks else None,
        "taken away": removed[len(removed) // 2] if removed else None,
        "shared directions": looked.space_HK.shape[1],
        "problems": "; ".join([*problems_of(member.integrity), *(["its own engine"] if member.apart else [])]) or "none",
    }


def _measured(name: str, digest: str | None, summary: Row, rows: Sequence[Row], diverged: Sequence[Row]) -> Row:
    """Rates by kind, divergence, length and repetition of one variant."""
    mine = [row for row in rows if (row["form"] == "base" if digest is None else row["variant_hash"] == digest)]
    figures = {
        figure["kind"]: figure
        for figure in summary["figures"]
        if figure["variant_hash"] == mine[0]["variant_hash"] and figure["judge"] == summary["judges"][0]["name"]
    }
    kinds = [row["category"] for row in diverged]
    kl = {
        heading: asdict(average([row[column] for row in diverged], kinds)) if diverged else None
        for heading, column in (("KL a token", "per_token"), ("KL a response", "per_response"), ("KL first token", "first_token"))
    }
    lengths = length_figures([row for row in mine if row["kind"] == DECLINED] or mine)
    return {
        "declined": _figure(figures, DECLINED, "declined"),
        "declined, answerable": _figure(figures, ANSWERABLE, "declined"),
        "product": _figure(figures, DECLINED, "product"),
        **kl,
        "tokens": lengths["tokens"],
        "repetition": lengths["repetition"],
    }


def _figure(figures: Mapping[str, Row], kind: str, name: str) -> Row | None:
    return figures[kind][name] if kind in figures else None


def _claim(member: Member, claim: Claim, measured: Row) -> Row:
    """A card's figure beside ours; a KL stands beside the first token's, which is what tools of this field report."""
    names = {"kl": "KL first token", "declined": "declined"}
    found = measured[names[claim.kind]]
    return {
        "variant": member.name,
        "the card says": claim.said,
        "measured": found,
        "whole response": measured["KL a token"] if claim.kind == "kl" else None,
        "claim": against(claim, found),
    }


def _angles(looked: Mapping[str, Forensics]) -> list[Row]:
    """Principal angles of every two members' shared directions, in degrees."""
    names = list(looked)
    found = []
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            degrees = angles(looked[one].space_HK, looked[other].space_HK)
            if degrees:
                found.append({"variant": one, "other": other, "degrees": ", ".join(f"{angle:.1f}" for angle in degrees)})
    return found


def _along(name: str, looked: Forensics, units_LH: "Tensor") -> Row:
    """The given direction that lies most inside a member's shared directions, and all of them by layer."""
    lengths = inside(looked.space_HK, units_LH)
    best = max(range(len(lengths)), key=lambda layer: lengths[layer])
    width = units_LH.shape[1]
    expected = (looked.space_HK.shape[1] / width) ** 0.5
    return {"variant": name, "layer": best, "cosine": lengths[best], "by chance": expected, "by_layer": lengths}


def _details(member: Member, looked: Forensics) -> dict[str, Any]:
    replacement = member.variant.replacement
    assert replacement is not None
    return {
        "folder": replacement.directory.name,
        "variant_hash": member.variant.hash,
        "integrity": member.integrity,
        "apart": member.apart,
        "layers": looked.layers,
        "shared": looked.shared,
        "tensors": [asdict(change) for change in looked.changes],
    }
