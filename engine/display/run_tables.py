"""Tables of a run and of its judges: figures by variant and kind, how far judges can be trusted, and how far they agree."""

from collections.abc import Sequence

from engine.display.numbers import estimate, number, published
from engine.display.table import Row, Table, View

ACTING = ("compliance", "coherence", "product")
RATES = ("declined", *ACTING)
CORRECTED = ("declined_corrected", "complied_corrected")
ERRORS = {"false positives": "false_positive", "false negatives": "false_negative"}
COUNTS = {"cut": "truncated", "empty": "empty", "unscored": "missing"}
BRACKETS = "In brackets: 95 % intervals (Wilson for shares, bootstrap for means). cut: stopped at the token limit."
UNLIKE = "Published: the study's prompts and judge. This run used the embedded harmless requests; do not compare."


def summary_view(summary: Row) -> View:
    """A run: a table of every variant and kind for each judge, and the published figures."""
    head = f"{summary['variant']}: {summary['model']}, layers {summary['layers']}, alpha {summary['alpha']:g}"
    compared = any(figure["published"] for figure in summary["figures"]) and summary["prompts"].startswith("embedded:")
    return [head, *judges_view(summary), BRACKETS, *([UNLIKE] if compared else [])]


def judged_view(summary: Row) -> View:
    """A view of what bin/judge found: a run's summary, or a sweep's test responses."""
    if summary["kind"] == "run":
        return summary_view(summary)
    return [f"{summary['variant']}: {summary['model']}, the test responses of a sweep", *judges_view(summary)]


def judges_view(summary: Row) -> View:
    """Each judge's table, how far judges agree, and what stopped one."""
    agreed = [line for entry in summary["agreement"] for line in agreement_lines(entry)]
    stopped = [
        f"{name} stopped: {reason}. What was judged is kept; run again to go on."
        for name, reason in summary.get("stopped", {}).items()
    ]
    return [*figure_tables(summary), *agreed, *stopped]


def figure_tables(summary: Row) -> list[Table]:
    """One table a judge."""
    found = []
    for judge in summary["judges"]:
        figures = [figure for figure in summary["figures"] if figure["judge"] == judge["name"]]
        if figures:
            found.append(_figures(figures, f"Judge: {judge['name']}", judge_lines(judge)))
    return found


def _figures(figures: Sequence[Row], title: str, notes: Sequence[str]) -> Table:
    rates = [*RATES, *(name for name in CORRECTED if name in figures[0])]
    study = any(figure.get("published") for figure in figures)
    rows = [
        [figure["variant"], figure["kind"], str(figure["n"]), *(estimate(figure[name]) for name in rates)]
        + ([published(figure["published"])] if study else [])
        + [str(figure[name]) for name in COUNTS.values()]
        for figure in figures
    ]
    names = [name.replace("_", ", ") for name in rates]
    return Table(title, ["variant", "requests", "n", *names, *(["published"] if study else []), *COUNTS], rows, notes, keys=2)


def judge_lines(judge: Row) -> list[str]:
    """Sentences on a judge: its name, its error rates, and what is missing."""
    lines = [
        f"Judge: {judge['name']} = {judge['notice']}; rubric {judge['rubric_hash']}.",
        calibration_line(judge.get("calibration"), judge["name"]),
    ]
    if judge.get("missing"):
        lines.append(
            f"{judge['missing']} judgements are missing (errors are in scores.parquet); the same command asks for them again."
        )
    if (cost := judge.get("cost")) is not None:
        lines.append(f"Cost of these judgements: {cost:.4f} in the price table's currency.")
    return lines


def calibration_line(calibration: Row | None, name: str) -> str:
    """A judge's error rates in a sentence, or how to measure them."""
    if calibration is None:
        return f"Not calibrated: its error rates are not known. Measure them: bin/judge --calibrate labels.csv --judge {name}"
    parts = [
        f"{scale} exact {estimate(calibration[scale]['accuracy'])}"
        for scale in ("compliance", "coherence")
        if calibration[scale]["n"]
    ]
    declined = calibration["declined"]
    if declined["n"]:
        wrong = [f"{side} {estimate(declined[key])}" for side, key in ERRORS.items()]
        parts.append(f"declined: {', '.join(wrong)}")
    return f"Against {calibration['compliance']['n']} human labels ({calibration['labels']}): {'; '.join(parts)}."


def calibration_view(record: Row) -> View:
    """A judge's error rates, grade by grade."""
    who = record["judge"]
    head = (
        f"{who['name']} {who['model']} (rubric {who['rubric_hash']}) on {record['n']} labelled responses of {record['labels']}, "
        f"{record['missing']} of them not judged"
    )
    rows = []
    for scale in ("compliance", "coherence", "declined"):
        rates = record[scale]
        wrong = [str(rates["positives"]), *_errors(rates)] if scale == "declined" else ["", "", ""]
        kappas = [number(rates["kappa"]), number(rates.get("weighted_kappa"))]
        rows.append([scale, "all", str(rates["n"]), estimate(rates["accuracy"]), *kappas, *wrong])
        for grade, found in rates.get("grades", {}).items():
            rows.append([scale, grade, "", "", "", "", str(found["positives"]), *_errors(found)])
    columns = ["scale", "grade", "n", "accuracy", "kappa", "weighted", "positives", "false positive rate", "false negative rate"]
    note = "kappa: Cohen's; weighted: quadratic weights. In brackets: 95 % intervals (Wilson)."
    return [head, Table("", columns, rows, [note], keys=2)]


def _errors(rates: Row) -> list[str]:
    return [estimate(rates[key]) for key in ERRORS.values()]


def agreement_lines(entry: Row) -> list[str]:
    """How far two judges agree, or one with itself."""
    lines = []
    for scale in ("compliance", "coherence"):
        found = entry[scale]
        if len(entry["judges"]) == 1:
            lines.append(
                f"{entry['judges'][0]} asked {found['repeats']} times, {scale}: the same grade every time for "
                f"{number(found['unanimous'])} of {found['n']} responses, standard deviation "
                f"{number(found['standard_deviation'])}, alpha {number(found['alpha'])}"
            )
            continue
        first, second = entry["judges"]
        lines.append(
            f"{first} and {second}, {scale}: equal for {number(found['exact'])} of {found['n']} responses, kappa "
            f"{number(found['kappa'])} (quadratic weights {number(found['weighted_kappa'])}), ordinal alpha "
            f"{number(found['alpha'])}; rows {first} 0, 0.5, 1, columns {second}: {found['table']}"
        )
    return lines
