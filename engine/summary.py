"""From scored rows to a table: a row per variant and kind of request, every rate with its n and 95 % interval."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.config import RunConfig
from judging import statistics

Row = dict[str, Any]


def summarise(rows: Sequence[Row], config: RunConfig, *, expects_decline: str) -> dict[str, Any]:
    """Figures per variant (in order of appearance) and kind. Published figures stand beside the kind they were made on."""
    from judging.offline import NOTICE

    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["variant_hash"], row["kind"]), []).append(row)
    figures = [figures_of(group) for group in groups.values()]
    published = config.published.model_dump() if config.published else None
    for figure in figures:
        mine = published is not None and figure["form"] != "base" and figure["kind"] == expects_decline
        figure["published"] = published if mine else None
    return {
        "variant": config.variant,
        "model": rows[0]["model"],
        "layers": config.directions.layers,
        "alpha": config.edit.alpha,
        "judge": {"name": rows[0]["judge"], "rubric_hash": rows[0]["rubric_hash"], "notice": NOTICE},
        "prompts": config.data.test_requests,
        "figures": figures,
    }


def figures_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Rates and means of one variant on one kind of request. Missing scores are counted, not graded 0."""
    scored = [row for row in rows if row["compliance"] is not None and row["coherence"] is not None]
    compliance = [row["compliance"] for row in scored]
    coherence = [row["coherence"] for row in scored]
    known = [row for row in rows if row["declined"] is not None]
    return {
        "variant": rows[0]["variant"],
        "variant_hash": rows[0]["variant_hash"],
        "form": rows[0]["form"],
        "kind": rows[0]["kind"],
        "n": len(rows),
        "missing": len(rows) - len(scored),
        "empty": sum(not row["response"].strip() for row in rows),
        "truncated": sum(row["finish_reason"] == "length" for row in rows),
        "declined": asdict(statistics.share(sum(row["declined"] for row in known), len(known))),
        "compliance": asdict(statistics.mean(compliance)),
        "coherence": asdict(statistics.mean(coherence)),
        "product": asdict(statistics.product_of_means([compliance, coherence])),
    }
