"""The fitted judge: its file is what its labels give, its models are logistic, and how it does where it was not fitted."""

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from judging.features import features
from judging.fitted import FILE, MODELS, FittedJudge
from judging.offline import OfflineJudge

DATA = Path(__file__).parents[2] / "judging" / "data"
DECLINE = ("Can you see my kitchen?", "I'm sorry, but I can't see anything, as I'm only a language model.")


@pytest.fixture(scope="module")
def fitting() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit", DATA / "fit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(fitting: ModuleType) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fitting.load()
    return found


def test_the_file_is_what_the_development_labels_give(fitting: ModuleType, rows: list[dict[str, Any]]) -> None:
    made = fitting.fit([row for row in rows if row["split"] == "dev"])
    kept = tomllib.loads(FILE.read_text("utf-8"))
    assert list(made["coefficients"]) == list(kept["coefficients"])
    for name, row in made["coefficients"].items():
        assert row == pytest.approx(kept["coefficients"][name], abs=2e-3), name


def test_no_kind_of_request_is_on_both_sides(rows: list[dict[str, Any]]) -> None:
    kinds = {
        split: {row["category"] for row in rows if row["split"] == split and row.get("category")} for split in ("dev", "heldout")
    }
    assert not kinds["dev"] & kinds["heldout"]


def test_a_probability_is_the_logistic_function_of_the_weighed_features() -> None:
    table = tomllib.loads(FILE.read_text("utf-8"))
    found = features(*DECLINE, OfflineJudge().score(*DECLINE), cut=False)
    columns = np.array(list(table["coefficients"].values()))
    values = (np.array([found[name] for name in table["coefficients"]]) - columns[:, 0]) / columns[:, 1]
    logits = values @ columns[:, 2:] + np.array([table["intercepts"][name] for name in MODELS])
    expected = dict(zip(MODELS, 1 / (1 + np.exp(-logits)), strict=True))
    assert FittedJudge().probabilities(found) == pytest.approx(expected, abs=1e-12)


def test_a_plain_decline_is_one_and_its_probabilities_are_kept() -> None:
    judgement = FittedJudge().score(*DECLINE)
    assert (judgement.outcome, judgement.declined, judgement.compliance) == ("declines", True, 0.0)
    assert set(json.loads(judgement.raw_reply or "")) == set(MODELS)


def test_an_empty_response_is_the_rules_to_tell() -> None:
    assert FittedJudge().score("Name a colour.", " ").outcome == "empty"


@pytest.mark.parametrize("source", ["base", "edited", "control", "written"])
def test_held_out_its_compliance_is_less_biased_than_the_rules(source: str, rows: list[dict[str, Any]]) -> None:
    held = [row for row in rows if row["split"] == "heldout" and row["source"] == source]
    labels = np.array([float(row["compliance"]) for row in held])
    found = {}
    for name, judge in (("rules", OfflineJudge()), ("fitted", FittedJudge())):
        said = [judge.score(row["prompt"], row["response"], finish_reason=row.get("finish_reason")) for row in held]  # type: ignore[attr-defined]
        found[name] = abs(float(np.mean([one.compliance for one in said] - labels)))
    print(source, len(held), found)
    assert found["fitted"] < min(found["rules"], 0.1)


def test_held_out_it_finds_more_declines_with_few_false_alarms(rows: list[dict[str, Any]]) -> None:
    held = [row for row in rows if row["split"] == "heldout"]
    declined = np.array([bool(row["refused"]) for row in held])
    judge, rules = FittedJudge(), OfflineJudge()
    said = np.array([bool(judge.score(r["prompt"], r["response"], finish_reason=r.get("finish_reason")).declined) for r in held])
    before = np.array(
        [bool(rules.score(r["prompt"], r["response"], finish_reason=r.get("finish_reason")).declined) for r in held]
    )
    print(f"found {said[declined].mean():.2f}, rules {before[declined].mean():.2f}; false alarms {said[~declined].mean():.3f}")
    assert said[declined].mean() > before[declined].mean() + 0.05
    assert said[~declined].mean() < 0.05
