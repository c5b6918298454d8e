"""Summaries: what is counted, and what is missing rather than zero."""

import itertools
import random
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from engine.runs import parquet
from engine.runs.schemas import ROLLOUT_SCHEMA, SCORE_SCHEMA
from engine.scoring import summary
from engine.scoring.summary import figures_of
from judging import agreement, statistics
from judging.outcomes import OUTCOMES

NUMBERS = itertools.count()


def scored(compliance: float | None, coherence: float | None, declined: bool | None, **more: object) -> dict[str, object]:
    row = {
        "prompt_id": f"declined/{next(NUMBERS):05d}",
        "variant": "v",
        "variant_hash": "h",
        "form": "in_place",
        "kind": "declined",
        "split": "test",
        "category": "k",
        "empty": False,
        "finish_reason": "stop",
    }
    return row | {"compliance": compliance, "coherence": coherence, "declined": declined, "outcome": None, "harm": None} | more


def test_empty_and_truncated_stay_in_and_missing_scores_are_no_zeros() -> None:
    rows = [
        scored(1.0, 1.0, False),
        scored(0.0, 1.0, True),
        scored(0.0, 0.0, False, empty=True),
        scored(0.5, 0.5, False, finish_reason="length"),
        scored(None, None, None),
    ]
    figures = figures_of(pa.Table.from_pylist(rows))
    assert (figures["n"], figures["missing"], figures["empty"], figures["truncated"]) == (5, 1, 1, 1)
    assert figures["declined"]["value"] == 1 / 4
    assert figures["compliance"]["value"] == 1.5 / 4
    assert figures["coherence"]["value"] == 2.5 / 4
    assert figures["product"]["value"] == 1.25 / 4
    assert figures["product_of_means"]["value"] == 1.5 / 4 * 2.5 / 4


def test_outcomes_are_counted_in_the_sets_order() -> None:
    rows = [scored(1.0, 1.0, False, outcome="complies"), scored(0.0, 1.0, True, outcome="declines")]
    found = figures_of(pa.Table.from_pylist([*rows, rows[0], scored(None, None, None)]))["outcomes"]
    assert {name: count for name, count in found.items() if count} == {"complies": 2, "declines": 1}
    assert list(found) == list(OUTCOMES)


def sampled_twice(*grades: tuple[float, float]) -> list[dict[str, object]]:
    return [
        scored(grade, 1.0, not grade, prompt_id=f"declined/{place:05d}#{number}")
        for place, pair in enumerate(grades)
        for number, grade in enumerate(pair)
    ]


def test_variance_between_and_within_prompts_stands_in_the_figures() -> None:
    """Three prompts' means are 0, 0.5 and 1. Their mean square is 0.5, that within is 1/6, so (1/2 - 1/6) / 2 is between."""
    found = figures_of(pa.Table.from_pylist(sampled_twice((0.0, 0.0), (0.0, 1.0), (1.0, 1.0))))["samples"]
    assert found["product"] == pytest.approx({"within": 1 / 6, "between": 1 / 6, "share_between": 0.5})


def test_the_variance_of_declining_stands_beside_it() -> None:
    found = figures_of(pa.Table.from_pylist(sampled_twice((0.0, 0.0), (1.0, 1.0))))["samples"]
    assert found["declined"] == pytest.approx({"within": 0.0, "between": 0.5, "share_between": 1.0})


def test_one_sample_a_prompt_has_no_such_variances() -> None:
    assert figures_of(pa.Table.from_pylist([scored(1.0, 1.0, False), scored(0.0, 1.0, True)]))["samples"] is None


def in_two_languages() -> list[dict[str, Any]]:
    rows = [scored(1.0, 1.0, False, language="en"), scored(0.0, 0.5, True, language="en"), scored(0.5, 1.0, False, language="de")]
    found = figures_of(pa.Table.from_pylist([*rows, scored(None, None, None, language=None)]))["languages"]
    return [] if found is None else found


def test_rates_stand_by_language() -> None:
    assert [(part["language"], part["product"]["value"]) for part in in_two_languages()] == [("en", 0.5), ("de", 0.5), ("", None)]


def test_a_language_has_its_own_interval_of_declining() -> None:
    assert in_two_languages()[0]["declined"] == asdict(statistics.rate([False, True], ["k", "k"]))


def test_prompts_that_name_no_language_are_counted_apart() -> None:
    assert [(part["language"], part["n"]) for part in in_two_languages()] == [("en", 2), ("de", 1), ("", 1)]


def test_prompts_of_one_language_have_no_rates_apart() -> None:
    assert figures_of(pa.Table.from_pylist([scored(1.0, 1.0, False, language="en")] * 3))["languages"] is None


def test_a_run_from_before_languages_is_read(tmp_path: Path) -> None:
    made(tmp_path, variants=2, prompts=6)
    whole = pa.parquet.read_table(tmp_path / "rollouts.parquet")
    pa.parquet.write_table(whole.drop_columns(["language", "condition"]), tmp_path / "rollouts.parquet")
    table = summary.read_rollouts(tmp_path / "rollouts.parquet")
    figures = summary.figures_by(table, summary.read_scores(tmp_path / "scores.parquet")["rules"], judge="rules")
    assert {figure["languages"] for figure in figures} == {None}


def test_a_judge_without_outcomes_has_no_mix() -> None:
    assert figures_of(pa.Table.from_pylist([scored(1.0, 1.0, False)] * 3))["outcomes"] is None


def test_missing_scores_have_bounds() -> None:
    """120 of 200 comply; a filter strikes 60 of those: 0.429 of what is left, and between 0.3 and 0.6 of all."""
    rows = [scored(1.0, 1.0, False)] * 60 + [scored(0.0, 1.0, True)] * 80 + [scored(None, None, None)] * 60
    figures = figures_of(pa.Table.from_pylist(rows))
    assert figures["compliance"]["value"] == pytest.approx(60 / 140)
    assert figures["bounds"]["compliance"] == pytest.approx([0.3, 0.6])
    assert figures["bounds"]["declined"] == pytest.approx([0.4, 0.7])


def test_a_figure_whose_scores_are_all_there_has_no_bounds() -> None:
    assert figures_of(pa.Table.from_pylist([scored(1.0, 1.0, False)] * 3))["bounds"] is None


def test_kinds_are_counted_and_unnamed_prompts_are_none() -> None:
    named = [scored(1.0, 1.0, False, category=name) for name in ("a", "a", "b", "")]
    assert figures_of(pa.Table.from_pylist(named))["kinds"] == 3
    assert figures_of(pa.Table.from_pylist([scored(1.0, 1.0, False, category="")] * 3))["kinds"] is None


def plain_figures(rollouts: list[dict[str, Any]], scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reference: everything as rows, grouped and averaged one by one."""
    repeats: dict[Any, list[dict[str, Any]]] = {}
    for row in scores:
        repeats.setdefault((row["variant_hash"], row["prompt_id"]), []).append(row)
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rollouts:
        if found := repeats.get((row["variant_hash"], row["prompt_id"])):
            values = {name: [one[name] for one in found if one[name] is not None] for name in summary.GRADES}
            means = {name: sum(grades) / len(grades) if grades else None for name, grades in values.items()}
            groups.setdefault((row["variant_hash"], row["kind"], row["split"]), []).append(row | means)
    figures = []
    for rows in groups.values():
        scored = [row for row in rows if row["compliance"] is not None and row["coherence"] is not None]
        compliance, coherence = ([row[name] for row in scored] for name in ("compliance", "coherence"))
        declined = [row["declined"] > 0.5 for row in rows if row["declined"] is not None]
        said = [row["category"] for row in rows if row["declined"] is not None]
        kinds = [row["category"] for row in scored]
        figures.append(
            {name: rows[0][name] for name in ("variant", "variant_hash", "form", "split", "kind")}
            | {"n": len(rows), "missing": len(rows) - len(scored), "n_declined": len(declined)}
            | {"empty": sum(not row["response"].strip() for row in rows)}
            | {"truncated": sum(row["finish_reason"] == "length" for row in rows)}
            | {"declined": asdict(statistics.rate(declined, said))}
            | {"complied": asdict(statistics.rate([grade == 1 for grade in compliance], kinds))}
            | {name: asdict(one) for name, one in statistics.of_grades(compliance, coherence, kinds).items()}
        )
    return figures


def made(folder: Path, variants: int, prompts: int, repeats: int = 1) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """rollouts.parquet and scores.parquet of `folder`, and their rows; some responses have no score, some scores no grade."""
    rng = random.Random(0)
    rollouts: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for prompt in range(prompts):
        for variant in range(variants):
            key = {"variant_hash": f"h{variant}", "prompt_id": f"p{prompt:04d}"}
            names = {"variant": f"v{variant}", "form": "base" if variant == 0 else "in_place", "split": "test", "model": "m"}
            text = rng.choice(["\x1f\u3000\n", "An answer. " * 20])
            more = {
                "kind": rng.choice(["declined", "answerable"]),
                "category": f"kind {prompt % 7}",
                "finish_reason": rng.choice(["stop", "length"]),
                "response": text,
            }
            rollouts.append(dict.fromkeys(ROLLOUT_SCHEMA.names) | key | names | more)
            for judge, repeat in [("rules", 0), *(("model", number) for number in range(repeats))]:
                known = rng.random() < 0.9
                grades = {name: rng.choice([0.0, 0.5, 1.0]) if known else None for name in ("compliance", "coherence")}
                grades |= {"declined": rng.choice([True, False, None]) if known else None, "cost": rng.choice([None, 0.1])}
                who = {"judge": judge, "judge_model": judge, "rubric_hash": "r", "repeat": repeat}
                row = dict.fromkeys(SCORE_SCHEMA.names) | key | who | grades | {"error": None if known else "none"}
                if len(scores) < 2 or rng.random() < 0.95:
                    scores.append(row)
    parquet.write_table(folder / "rollouts.parquet", rollouts, ROLLOUT_SCHEMA)
    parquet.write_table(folder / "scores.parquet", scores, SCORE_SCHEMA)
    return rollouts, scores


def test_figures_read_as_columns_are_those_of_plain_rows(tmp_path: Path) -> None:
    rollouts, scores = made(tmp_path, variants=5, prompts=40, repeats=3)
    rng = random.Random(1)
    shuffled = rng.sample(rollouts, len(rollouts))
    parquet.write_table(tmp_path / "rollouts.parquet", shuffled, ROLLOUT_SCHEMA)
    table, judges = summary.read_rollouts(tmp_path / "rollouts.parquet"), summary.read_scores(tmp_path / "scores.parquet")
    assert list(judges) == ["rules", "model"]
    for judge, found in judges.items():
        expected = plain_figures(shuffled, [row for row in scores if row["judge"] == judge])
        figures = summary.figures_by(table, found, judge=judge)
        assert [{name: figure[name] for name in expected[0]} for figure in figures] == expected
        entry = summary.judge_entry(judge, found, {})
        mine = [row for row in scores if row["judge"] == judge]
        assert entry["missing"] == sum(row["error"] is not None for row in mine)
        assert entry["cost"] == sum(row["cost"] for row in mine if row["cost"] is not None)
        assert entry["repeats"] == (3 if judge == "model" else 1)


def test_agreement_is_that_of_all_scores_by_key(tmp_path: Path) -> None:
    _, scores = made(tmp_path, variants=3, prompts=30, repeats=2)

    def by_key(judge: str, repeat: int) -> dict[Any, dict[str, Any]]:
        mine = [row for row in scores if row["judge"] == judge and row["repeat"] == repeat]
        return {(row["variant_hash"], row["prompt_id"]): row for row in mine}

    found = summary.agreements(summary.read_scores(tmp_path / "scores.parquet"))
    assert found == [
        {"judges": ["rules", "model"], **agreement.of_two(by_key("rules", 0), by_key("model", 0))},
        {"judges": ["model"], **agreement.of_repeats([by_key("model", 0), by_key("model", 1)])},
    ]


def python_peak(folder: Path, prompts: int) -> int:
    """Python's and numpy's largest allocation while the figures' columns are read and joined."""
    folder.mkdir()
    made(folder, variants=4, prompts=prompts)
    tracemalloc.start()
    rows = summary.read_rollouts(folder / "rollouts.parquet")
    for scores in summary.read_scores(folder / "scores.parquet").values():
        summary.places_of(summary.mean_of_repeats(scores), rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_reading_for_figures_costs_some_bytes_a_response_and_not_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "ROWS_A_BATCH", 256)
    few, many = python_peak(tmp_path / "few", 500), python_peak(tmp_path / "many", 2000)
    print(f"{few / 1e3:.0f} kB for 2,000 responses of 220 characters, {many / 1e3:.0f} kB for 8,000")
    assert (many - few) / 6000 < 150


def test_a_judge_of_harm_alone_leaves_nothing_missing() -> None:
    rows = [scored(None, None, None, harm=0.25), scored(None, None, None, harm=0.75)]
    figures = figures_of(pa.Table.from_pylist(rows))
    assert (figures["missing"], figures["harm"]["value"]) == (0, 0.5)
