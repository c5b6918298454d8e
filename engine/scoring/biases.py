"""A judge's errors beside the figures that they touch: by source, corrected where the labels are of the very variant."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from engine.runs.schemas import Row
from judging.bias import LEAST, SCALES, apart, corrected, differs
from judging.calibration import corrected_share
from judging.statistics import MISSING, Estimate

BASE, EDITED, CONTROL = "base", "edited", "control"
CONTROLS = ("random", "shuffled")
SHARES = ("declined", "complied")


def add_biases(figures: Sequence[Row], judges: Sequence[Row], model: str) -> None:
    """Give each figure its `judge_bias`: the judge's error on labels of its source, and the figures less that error.

    Corrected only where the labels are of this variant of this model: a sample of the responses that the figure is of. Labels of
    other responses show the error's sign and size, and correct nothing. None where there are no labels of the source.
    """
    records = {judge["name"]: (judge.get("calibration") or {}).get("by_source", []) for judge in judges}
    repeats = {judge["name"]: judge.get("repeats", 1) for judge in judges}
    for figure in figures:
        found = None if repeats[figure["judge"]] > 1 else entry_of(figure, records[figure["judge"]], model)
        figure["judge_bias"] = None if found is None else bias_row(figure, found)


def entry_of(figure: Mapping[str, Any], records: Sequence[Row], model: str) -> Row | None:
    """The measured errors on such requests that are nearest to a figure: of its variant and model, else of its source."""
    like = [record for record in records if record["requests"] in ("", figure["kind"])]
    own = [record for record in like if (record["variant"], record["model"]) == (figure["variant"], model)]
    of_source = [record for record in like if not record["variant"] and record["source"] == source_of(figure)]
    return next(iter([*own, *of_source]), None)


def source_of(figure: Mapping[str, Any]) -> str:
    """Whose responses a figure is of: the base's, a control's or an edited model's."""
    if figure["form"] == BASE:
        return BASE
    return CONTROL if figure["variant"].startswith(CONTROLS) else EDITED


def bias_row(figure: Row, record: Row) -> Row:
    """The errors of one source, whether they are of this very variant, and what they leave of the figure."""
    own = bool(record["variant"])
    biases = {name: Estimate(**record["bias"][name]) for name in SCALES}
    kept = {name: corrected(Estimate(**figure[name]), biases[name]) if own else MISSING for name in SCALES}
    return {
        "source": record["source"],
        "own": own,
        "n": record["n"],
        "responses": record["responses"],
        "raters": record["raters"],
        "bias": {name: asdict(value) for name, value in biases.items()},
        "corrected": {name: asdict(value) for name, value in kept.items()},
    }


def differential(figures: Sequence[Row]) -> list[Row]:
    """Where a judge errs differently on an edited variant than on the base: judge, variant, scale and the difference.

    The part of an effect that is the judge's own.
    """
    found = []
    bases = {(row["judge"], row["kind"]): row["judge_bias"] for row in figures if row["form"] == BASE and row["judge_bias"]}
    for row in figures:
        base = bases.get((row["judge"], row["kind"]))
        if row["form"] == BASE or base is None or row["judge_bias"] is None:
            continue
        for name in SCALES:
            mine, theirs = (Estimate(**side["bias"][name]) for side in (row["judge_bias"], base))
            if differs(mine, theirs):
                difference = asdict(apart(mine, theirs))
                found.append({"judge": row["judge"], "variant": row["variant"], "scale": name, "difference": difference})
    return list({(row["judge"], row["variant"], row["scale"]): row for row in found}.values())


def add_corrections(summary: Row) -> None:
    """Add to each figure the shares that declined and that complied fully, corrected for the judge's errors on its source.

    MISSING where no labels of the source are known, and where a judge was asked several times: its error rates are those of one
    judgement, not of a mean or a majority.
    """
    records = {
        judge["name"]: (judge["calibration"] or {}).get("by_source", []) if judge["repeats"] == 1 else []
        for judge in summary["judges"]
    }
    for figure in summary["figures"]:
        record = entry_of(figure, records[figure["judge"]], summary["model"])
        counts = {"declined": figure["n_declined"], "complied": figure["n"] - figure["missing"]}
        for name in SHARES:
            seen = figure[name]["value"]
            usable = record is not None and record["n"] >= LEAST and seen is not None
            found = corrected_share(seen, counts[name], record[name]) if usable and record else MISSING
            figure[f"{name}_corrected"] = asdict(found)
