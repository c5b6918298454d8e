"""A finished run directory with no model behind it, whose text attacks the page that shows it."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

from engine.configs.load import load_config
from engine.paths import write_json
from engine.runs import parquet
from engine.runs.run_dir import open_run_dir
from engine.runs.schemas import ROLLOUT_SCHEMA, SCORE_SCHEMA

SCRIPT = "</script><script>document.title='taken over'</script><img src=x onerror=\"document.title='taken over'\">"
Row = dict[str, Any]
RATES = ("declined", "complied", "compliance", "coherence", "product", "product_of_means")


def unpacked(page: Path) -> list[Row]:
    """The data of each run of a page, as gzip and JSON read it."""
    holders = re.findall(r'<script type="application/gzip" class="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return [json.loads(gzip.decompress(base64.b64decode(holder))) for holder in holders]


def estimate(value: float) -> Row:
    return {"value": value, "low": max(value - 0.05, 0.0), "high": min(value + 0.05, 1.0), "n": 30, "method": "made"}


def make_run(
    path: Path,
    *,
    variant: str = "smollm2_135m_k1",
    prompts: int = 40,
    published: Row | None = None,
    requests: str = "embedded:test_requests",
    judges: tuple[str, ...] = ("offline",),
) -> Path:
    """A finished run of `prompts` requests whose first response is an attack on the page.

    Of several judges the second gives 0.5 for every fourth of the variant's, and has reasons.
    """
    config = load_config(variant, {"data.test_requests": requests})
    identity = {"config": config.model_dump(mode="json", exclude={"sweep": True}), "base_hash": "b" * 64}
    run_dir = open_run_dir(path, identity)
    rollouts, scores = [], []
    for variant_name, form in (("base", "base"), (variant, "in_place")):
        for number in range(prompts):
            kind = "declined" if number % 4 else "answerable"
            declines = form == "base" and kind == "declined"
            row: Row = dict.fromkeys(ROLLOUT_SCHEMA.names)
            row |= {"variant": variant_name, "variant_hash": f"hash-{form}", "form": form, "split": "test", "kind": kind}
            row |= {
                "prompt_id": f"{kind}/{number:05d}",
                "category": f"kind {number % 3}",
                "model": "made@0",
                "finish_reason": "stop",
            }
            row |= {"prompt": f"Where is my key {number}? <b>bold</b>", "response_token_ids": [number, 2, 3]}
            row |= {"response": "I can't see it." if declines else SCRIPT if number == 0 else f"On table {number}."}
            rollouts.append(row)
            for place, judge in enumerate(judges):
                score: Row = dict.fromkeys(SCORE_SCHEMA.names)
                score |= {"variant_hash": row["variant_hash"], "prompt_id": row["prompt_id"], "judge": judge, "repeat": 0}
                score |= {"compliance": 0.0 if declines else 1.0, "coherence": 1.0, "declined": declines, "rubric_hash": "r"}
                if place and number % 4 == 0 and form != "base":
                    score |= {"compliance": 0.5, "reason": f"{judge} has its reasons"}
                scores.append(score)
    parquet.write_table(run_dir.file("rollouts.parquet"), rollouts, ROLLOUT_SCHEMA)
    parquet.write_table(run_dir.file("scores.parquet"), scores, SCORE_SCHEMA)
    write_json(run_dir.file("summary.json"), summary(variant, published))
    run_dir.manifest["stages"]["summary"] = {"inputs_hash": "x", "seconds": 1.0, "finished": "2026-01-01T00:00:00+00:00"}
    run_dir.save()
    return path


def summary(variant: str, published: Row | None) -> Row:
    figures = []
    for name, form, value in (("base", "base", 0.1), (variant, "in_place", 0.9)):
        for kind in ("declined", "answerable"):
            figure: Row = {"variant": name, "variant_hash": f"hash-{form}", "form": form, "split": "test", "kind": kind, "n": 30}
            figure |= {"missing": 0, "empty": 0, "truncated": 2, "judge": "offline", "n_declined": 30}
            figure |= {"kinds": 12, "icc": {"product": 0.05}, "effective_n": {"product": 20.4}}
            figure |= {"bounds": None, "judge_bias": None}
            figure |= {name: estimate(value) for name in RATES}
            paired = {name: {**estimate(0.8), "p": 0.0001} for name in ("declined", "compliance", "product")}
            figure["against_base"] = None if form == "base" else paired
            figure["coherence"] = estimate(0.9)
            figures.append(figure | {"published": published if form != "base" and kind == "declined" else None})
    judge = {
        "name": "offline",
        "notice": "rules",
        "rubric_hash": "r",
        "calibration": None,
        "repeats": 1,
        "missing": 0,
        "cost": None,
    }
    return {
        "kind": "run",
        "variant": variant,
        "model": "made@0",
        "layers": load_config(variant).directions.layers,
        "alpha": 1,
        "judges": [judge],
        "agreement": [],
        "differential": [],
        "unseen_kinds": [],
        "figures": figures,
    }
