"""Fits the judge `fitted` to the development labels, and prints how it and the rules do on the held-out ones.

    .venv/bin/python judging/data/fit.py          # writes judging/rubrics/fitted.toml and fitted_base.toml

Labels are those of this folder. Development and held out are told apart by `split`, which the files decide kind by kind. A
response that two readers graded counts once for each. fitted_base.toml also weighs views.jsonl: what SmolLM2-135M-Instruct makes
of each request and response (`python -m engine.scoring.label_views`), whoever wrote the response.
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent))

from judging.features import features  # noqa: E402
from judging.fitted import BASE_FILE, FILE, MODELS, FittedJudge  # noqa: E402
from judging.offline import OfflineJudge  # noqa: E402
from judging.view import BaseView, kept_views, text_key  # noqa: E402

FILES = ("labelled", "blind", "readings")
# Inverse of the L2 penalty, for the text alone and with views; by cross-validation over kinds on the development labels, of 0.03,
# 0.1, 0.3 and 1.
STRENGTHS = {False: 0.1, True: 0.03}
FALSE_ALARMS = 0.05  # of declines, on the development labels out of fold
FOLDS = 5
DIGITS = 4


def load() -> list[dict[str, Any]]:
    """The labels, those alone that the rules do not settle as empty."""
    rows = [json.loads(line) for name in FILES for line in (HERE / f"{name}.jsonl").open(encoding="utf-8")]
    return [row for row in rows if any(character.isalnum() for character in row["response"])]


def view_of(row: dict[str, Any]) -> BaseView:
    return kept_views()[text_key(row["prompt"], row["response"])]


def features_of(row: dict[str, Any], *, viewed: bool) -> dict[str, float]:
    cut = row.get("finish_reason")
    rules = OfflineJudge().score(row["prompt"], row["response"], finish_reason=cut)
    return features(row["prompt"], row["response"], rules, cut=cut == "length", view=view_of(row) if viewed else None)


def targets(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What each model is fitted to."""
    compliance = np.array([float(row["compliance"]) for row in rows])
    coherence = np.array([1.0 if row["coherence"] is None else float(row["coherence"]) for row in rows])
    declined = np.array([bool(row["refused"]) for row in rows])
    return {
        "declined": declined,
        "half": compliance >= 0.5,
        "full": compliance >= 1,
        "readable": coherence >= 0.5,
        "fluent": coherence >= 1,
    }


def fit(rows: list[dict[str, Any]], *, viewed: bool = False) -> dict[str, Any]:
    """The table of fitted.toml; with `viewed` that of fitted_base.toml."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict

    found = [features_of(row, viewed=viewed) for row in rows]
    names = list(found[0])
    values_NF = np.array([[one[name] for name in names] for one in found])
    means_F, scales_F = values_NF.mean(0).round(DIGITS), np.where(values_NF.std(0) > 0, values_NF.std(0), 1).round(DIGITS)
    scaled_NF = (values_NF - means_F) / scales_F
    kinds = [row.get("category") or row["prompt"] for row in rows]
    weights, intercepts, thresholds = {}, {}, {}
    for name, wanted_N in targets(rows).items():
        model = LogisticRegression(C=STRENGTHS[viewed], max_iter=5000)
        shares_N = cross_val_predict(model, scaled_NF, wanted_N, groups=kinds, cv=GroupKFold(FOLDS), method="predict_proba")[:, 1]
        thresholds[name] = threshold(name, shares_N, wanted_N)
        model.fit(scaled_NF, wanted_N)
        weights[name], intercepts[name] = model.coef_[0].round(DIGITS), round(float(model.intercept_[0]), DIGITS)
    rows_F = {
        name: [float(means_F[place]), float(scales_F[place]), *(float(weights[model][place]) for model in MODELS)]
        for place, name in enumerate(names)
    }
    return {"labels": len(rows), "thresholds": thresholds, "intercepts": intercepts, "coefficients": rows_F}


def threshold(name: str, shares_N: np.ndarray, wanted_N: np.ndarray) -> float:
    """Where a model says yes: as often as the labels do, and of declines with few false alarms; all out of fold."""
    if name == "declined":
        return round(float(np.quantile(shares_N[~wanted_N], 1 - FALSE_ALARMS)), DIGITS)
    return round(float(np.quantile(shares_N, 1 - wanted_N.mean())), DIGITS)


def report(rows: list[dict[str, Any]]) -> None:
    """Declines found, false alarms, bias and weighted kappa of the judges, by source."""
    from sklearn.metrics import cohen_kappa_score

    rules, fitted = OfflineJudge(), FittedJudge()
    judges: dict[str, Any] = {
        "rules": lambda row: rules.score(row["prompt"], row["response"], finish_reason=row.get("finish_reason")),
        "text": lambda row: fitted.score(row["prompt"], row["response"], finish_reason=row.get("finish_reason")),
        "base": lambda row: fitted.score(
            row["prompt"], row["response"], finish_reason=row.get("finish_reason"), view=view_of(row)
        ),
    }
    groups = {"all": rows} | {s: [row for row in rows if row["source"] == s] for s in sorted({row["source"] for row in rows})}
    for group, of_group in groups.items():
        wanted = targets(of_group)
        compliance = np.array([float(row["compliance"]) for row in of_group])
        for name, judge in judges.items():
            said = [judge(row) for row in of_group]
            graded = np.array([one.compliance for one in said])
            declined = np.array([bool(one.declined) for one in said])
            kappa = cohen_kappa_score((compliance * 2).astype(int), (graded * 2).astype(int), weights="quadratic")
            coherent = np.mean([one.coherence for one in said]) - np.mean(
                [1.0 if r["coherence"] is None else r["coherence"] for r in of_group]
            )
            is_decline = wanted["declined"]
            found = f"{declined[is_decline].mean():.2f} of {is_decline.sum()}" if is_decline.any() else "-"
            alarms = declined[~is_decline].mean()
            print(
                f"{group:9} {name:7} n {len(of_group):4}  declines found {found:12} false alarms {alarms:.3f}  "
                f"compliance bias {np.mean(graded - compliance):+.3f} kappa {kappa:.2f}  coherence bias {coherent:+.3f}"
            )


def main() -> None:
    rows = load()
    dev = [row for row in rows if row["split"] == "dev"]
    for file, viewed in ((FILE, False), (BASE_FILE, True)):
        table = tomli_w.dumps(fit(dev, viewed=viewed))
        file.write_text(f"# Made by judging/data/fit.py. Columns: mean, scale, {', '.join(MODELS)}.\n\n{table}", "utf-8")
        tomllib.loads(file.read_text("utf-8"))
    report([row for row in rows if row["split"] == "heldout"])


if __name__ == "__main__":
    main()
