"""The fitted judge: its file is what its labels give, its models are logistic, and how it does where it was not fitted."""

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from judging.features import features
from judging.fitted import BASE_FILE, FILE, MODELS, FittedJudge
from judging.judgement import Judgement
from judging.offline import OfflineJudge
from judging.view import BaseView, kept_views, text_key

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


@pytest.mark.parametrize(("file", "viewed"), [(FILE, False), (BASE_FILE, True)])
def test_a_file_is_what_the_development_labels_give(
    file: Path, viewed: bool, fitting: ModuleType, rows: list[dict[str, Any]]
) -> None:
    made = fitting.fit([row for row in rows if row["split"] == "dev"], viewed=viewed)
    kept = tomllib.loads(file.read_text("utf-8"))
    assert list(made["coefficients"]) == list(kept["coefficients"])
    for name, row in made["coefficients"].items():
        assert row == pytest.approx(kept["coefficients"][name], abs=2e-3), name


def test_no_kind_of_request_is_on_both_sides(rows: list[dict[str, Any]]) -> None:
    kinds = {
        split: {row["category"] for row in rows if row["split"] == split and row.get("category")} for split in ("dev", "heldout")
    }
    assert not kinds["dev"] & kinds["heldout"]


@pytest.mark.parametrize(("file", "view"), [(FILE, None), (BASE_FILE, BaseView(-0.4, -1.3, 0.6))])
def test_a_probability_is_the_logistic_function_of_the_weighed_features(file: Path, view: BaseView | None) -> None:
    table = tomllib.loads(file.read_text("utf-8"))
    found = features(*DECLINE, OfflineJudge().score(*DECLINE), cut=False, view=view)
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


Said = dict[str, list[Judgement]]


@pytest.fixture(scope="module")
def held(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["split"] == "heldout"]


@pytest.fixture(scope="module")
def said(held: list[dict[str, Any]]) -> Said:
    """What each judge says of the held-out labels: the rules, and the fitted ones by the text and with the base's view."""
    rules, fitted = OfflineJudge(), FittedJudge()
    asked = [(row["prompt"], row["response"], row.get("finish_reason")) for row in held]
    return {
        "rules": [rules.score(prompt, text, finish_reason=reason) for prompt, text, reason in asked],
        "text": [fitted.score(prompt, text, finish_reason=reason) for prompt, text, reason in asked],
        "base": [
            fitted.score(prompt, text, finish_reason=reason, view=kept_views()[text_key(prompt, text)])
            for prompt, text, reason in asked
        ],
    }


def bias(judge: str, source: str, held: list[dict[str, Any]], said: Said) -> float:
    pairs = [(one.compliance, row["compliance"]) for one, row in zip(said[judge], held, strict=True) if row["source"] == source]
    return float(np.mean([float(mine or 0) - float(theirs) for mine, theirs in pairs]))


def kappa(judge: str, held: list[dict[str, Any]], said: Said) -> float:
    mine, theirs = [int(2 * float(one.compliance or 0)) for one in said[judge]], [int(2 * row["compliance"]) for row in held]
    return float(cohen_kappa_score(theirs, mine, weights="quadratic"))


@pytest.mark.parametrize("judge", ["text", "base"])
@pytest.mark.parametrize("source", ["base", "edited", "control", "written"])
def test_held_out_its_compliance_is_less_biased_than_the_rules(
    source: str, judge: str, held: list[dict[str, Any]], said: Said
) -> None:
    found = {name: abs(bias(name, source, held, said)) for name in (judge, "rules")}
    print(source, found)
    assert found[judge] < min(found["rules"], 0.1)


@pytest.mark.parametrize("judge", ["text", "base"])
def test_held_out_it_finds_more_declines_than_the_rules(judge: str, held: list[dict[str, Any]], said: Said) -> None:
    declined = np.array([bool(row["refused"]) for row in held])
    shares = {name: float(np.mean(np.array([bool(one.declined) for one in said[name]])[declined])) for name in (judge, "rules")}
    print(f"declines found: {shares}")
    assert shares[judge] > shares["rules"] + 0.05


@pytest.mark.parametrize("judge", ["text", "base"])
def test_held_out_its_false_alarms_are_few(judge: str, held: list[dict[str, Any]], said: Said) -> None:
    declined = np.array([bool(row["refused"]) for row in held])
    assert np.mean(np.array([bool(one.declined) for one in said[judge]])[~declined]) < 0.05


def test_held_out_the_bases_view_brings_it_nearer_to_the_readers(held: list[dict[str, Any]], said: Said) -> None:
    found = {judge: kappa(judge, held, said) for judge in said}
    print(f"weighted kappa of compliance: {found}")
    assert found["rules"] + 0.1 < found["text"] < found["base"]
