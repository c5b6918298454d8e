"""From a finished search to its table, its files and its winner: test rates beside selection rates, p-values, controls."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.evaluate.candidates import BASE, RANDOM, SHUFFLED, Candidate
from engine.evaluate.rollouts import Rollouts
from engine.runs import parquet
from engine.runs.files import SCORES, SWEEP, SWEEP_RUN, WINNER
from engine.runs.of_config import model_name
from engine.runs.run_dir import RunDir
from engine.runs.schemas import ROLLOUT_KEY, Row, ScoreRow
from engine.scoring.calibrations import judge_of
from engine.scoring.scores import replace_scores, score_row
from engine.scoring.units import kinds_of
from engine.sweep.front import front, kept_variants, variant_name
from engine.sweep.search import Search, stage_row
from judging.bias import apart
from judging.kinds import effective_n, icc
from judging.paired import Grades, holm, mcnemar_p, product_difference, product_p
from judging.statistics import DIFFERENCE, OVER_KINDS, Estimate

CONTROLS = (SHUFFLED, RANDOM)
FIGURES = ("compliance", "coherence", "product", "product_of_means")
SWEEP_SCHEMA = pa.schema(
    [
        ("stage", pa.string()),
        ("variant", pa.string()),
        ("variant_hash", pa.string()),
        ("kind", pa.string()),
        ("sources", pa.list_(pa.string())),
        ("alpha", pa.float64()),
        ("k", pa.int32()),
        ("n", pa.int32()),
        *((f"{name}{suffix}", pa.float64()) for name in FIGURES for suffix in ("", "_low", "_high")),
        *((name, pa.float64()) for name in ("bypass", "induce", "kl")),
        *((name, pa.float64()) for name in ("selection_product", "difference", "difference_low", "difference_high")),
        *((name, pa.float64()) for name in ("p", "p_holm", "p_mcnemar", "icc", "effective_n")),
        ("kinds", pa.int32()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),
    ]
)


def confirm_rows(search: Search, tested: Sequence[Candidate]) -> list[Row]:
    """A row per candidate on the test prompts, with its selection product and its paired tests against the base.

    p: of equal products, differences changing sign kind by kind; p_holm: corrected over the finalists.
    p_mcnemar: of equal shares that comply fully and read well, each prompt by itself.
    """
    rollouts, inputs = search.rollouts, search.inputs
    grades = {candidate.name: rollouts.grades(candidate, inputs.test) for candidate in rollouts.working(tested)}
    base = grades[BASE]
    variants = [candidate for candidate in tested if candidate.kind != BASE and candidate.name in grades]
    p_values = {candidate.name: product_p(grades[candidate.name], base) for candidate in variants}
    claimed = [candidate.name for candidate in variants if candidate.kind not in CONTROLS]
    corrected = dict(zip(claimed, holm([p_values[name] for name in claimed]), strict=True))
    rows = []
    for candidate in tested:
        if candidate.name not in grades:
            rows.append(stage_row("confirm", candidate, reason=f"failed: {rollouts.failures[candidate.variant.hash]}"))
            continue
        selection = rollouts.grades(candidate, inputs.selection).product
        row = stage_row("confirm", candidate, grades[candidate.name]) | over_kinds(grades[candidate.name])
        row |= {"selection_product": selection, "p": p_values.get(candidate.name), "p_holm": corrected.get(candidate.name)}
        if candidate.kind != BASE:
            difference = product_difference(grades[candidate.name], base)
            row |= {"difference": difference.value, "difference_low": difference.low, "difference_high": difference.high}
            row["p_mcnemar"] = mcnemar_p(grades[candidate.name], base)
        rows.append(row)
    return rows


def over_kinds(grades: Grades) -> Row:
    """How far the products of one kind's prompts resemble each other, and how many independent prompts they are worth."""
    known = grades.known
    products, kinds = grades.products[known].tolist(), grades.at(known).kinds
    return {"kinds": kinds_of(kinds or ()), "icc": icc(products, kinds), "effective_n": effective_n(products, kinds)}


def summarise(search: Search, tested: Sequence[Candidate], rows: Sequence[Row]) -> dict[str, Any]:
    """A sweep's summary, which bin/sweep prints and --json gives."""
    config, rollouts = search.session.config, search.rollouts
    winner = next(candidate for candidate in tested if candidate.kind not in (BASE, *CONTROLS))
    on_front = front(search.stages)
    return {
        "kind": SWEEP_RUN,
        "variant": config.variant,
        "model": model_name(config, search.session.base_hash),
        "judge": {**judge_of(rollouts.scoring.grader), **rollouts.scoring.totals()},
        "winner": {
            "name": winner.name,
            "variant": variant_name(search, winner),
            "variant_hash": winner.variant.hash,
            "file": WINNER,
        },
        "variants": [variant_name(search, candidate) for candidate in kept_variants(search, tested, on_front)],
        "front": [{name: _plain(value) for name, value in row.items()} for row in on_front],
        "exhaustive": config.sweep.exhaustive,
        "selection_prompts": len(search.inputs.pairs),
        "test_prompts": len(search.inputs.test),
        "candidates": len(search.grid.singles()),
        "against_controls": against_controls(rows, winner.name),
        "optimism": optimism(search, winner),
        "confirm": [nested(row) for row in rows],
        "stages": [nested(row) for row in search.stages],
        "failures": _failures(search, tested),
    }


def against_controls(rows: Sequence[Row], winner: str) -> list[Row]:
    """The winner among each sort of control: how many there are, the best of them, and p, the share that does as well.

    Each control was chosen as the winner was. p is (1 + controls at least as good) / (1 + controls).
    """
    product = next(row["product"] for row in rows if row["variant"] == winner)
    found = []
    for kind in CONTROLS:
        drawn = [row for row in rows if row["kind"] == kind and row.get("product") is not None]
        if drawn and product is not None:
            as_good = sum(row["product"] >= product for row in drawn)
            best = max(drawn, key=lambda row: row["product"])["variant"]
            found.append({"kind": kind, "n": len(drawn), "best": best, "p": (1 + as_good) / (1 + len(drawn))})
    return found


def optimism(search: Search, winner: Candidate) -> Row:
    """How much more the winner gained over the base on the prompts that chose it than on the test prompts."""
    rollouts, inputs = search.rollouts, search.inputs
    gains = [
        product_difference(rollouts.grades(winner, requests), rollouts.grades(search.grid.base(), requests))
        for requests in (inputs.selection, inputs.test)
    ]
    return asdict(apart(*gains))


def timing(rollouts: Rollouts) -> dict[str, Any]:
    """Seconds by stage over interruptions, tokens, and what the sweep waited for.

    The engines generate and read likelihoods, one after the other; the judge grades meanwhile. So the wall is the engines'
    as long as they hardly wait for the judge.
    """
    totals = rollouts.times.totals
    generation = sum(totals.get(f"{split}_seconds", 0) for split in ("race", "selection", "test"))
    engines = generation + totals.get("likelihood_seconds", 0)
    return {
        **totals,
        "generation_seconds": round(generation, 2),
        "engine_seconds": round(engines, 2),
        "generated_tokens": sum(rollouts.lengths.values()),
        "bound_by": "judging" if totals.get("waited_for_judge_seconds", 0) > 0.1 * engines else "the engine",
    }


def write_tables(run_dir: RunDir, search: Search, rows: Sequence[Row]) -> None:
    """sweep.parquet, scores.parquet, and the merged rollouts and likelihoods."""
    parquet.write_table(run_dir.file(SWEEP), [*search.stages, *rows], SWEEP_SCHEMA)
    rollouts = search.rollouts
    write_scores(run_dir.path, rollouts)
    for table in rollouts.tables:
        table.merge({"prompt_id": None, "variant_hash": None})


def write_scores(folder: Path, rollouts: Rollouts) -> None:
    """scores.parquet: what other judges said stays, this one's is replaced."""
    replace_scores(folder / SCORES, rollouts.scoring.grader.name, score_rows(rollouts))


def score_rows(rollouts: Rollouts) -> Iterator[list[ScoreRow]]:
    """Every response's row of scores.parquet, in order of prompt and variant, some at a time."""
    judge = rollouts.scoring.grader
    by_text, told = rollouts.scoring.by_text, rollouts.told
    keys = rollouts.lengths.by_prompt()
    while some := list(islice(keys, parquet.ROWS_A_BATCH)):
        rows = [
            score_row(judge if key in told else by_text, dict(zip(ROLLOUT_KEY, key, strict=True)), 0, grade)
            for key, grade in ((key, rollouts.scoring.grades[key]) for key in some)
        ]
        yield rows


def _failures(search: Search, tested: Sequence[Candidate]) -> list[Mapping[str, str]]:
    names = {row["variant_hash"]: row["variant"] for row in search.stages}
    names |= {candidate.variant.hash: candidate.name for candidate in tested}
    return [{"variant": names.get(key, key), "reason": reason} for key, reason in search.rollouts.failures.items()]


def nested(row: Row) -> Row:
    """A row of sweep.parquet for JSON: its flat columns NAME, NAME_low and NAME_high as one estimate."""
    flat = {name: _plain(value) for name, value in row.items()}
    names = [*FIGURES, *(["difference"] if "difference" in flat else [])]
    bounds = {f"{name}{side}" for name in names for side in ("_low", "_high")}
    found = {name: value for name, value in flat.items() if name not in bounds}
    for name in names:
        method = f"{DIFFERENCE}over kinds" if name == "difference" else OVER_KINDS
        figure = Estimate(flat.get(name), flat.get(f"{name}_low"), flat.get(f"{name}_high"), flat.get("n") or 0, method)
        found[name] = asdict(figure)
    return found


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and value != value else value
