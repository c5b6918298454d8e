"""Prints a summary for people, on stdout: a table for each judge, with what is known of its errors below."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.display.console import console_for_stdout

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLUMNS = ("declined", "compliance", "coherence", "product")
CORRECTED = ("declined_corrected", "complied_corrected")
COUNTS = {"cut": "truncated", "empty": "empty", "unscored": "missing"}
Row = Mapping[str, Any]


def print_summary(summary: Row) -> None:
    """A table of every variant and kind for each judge, how far the judge can be trusted, and the published figures."""
    console = console_for_stdout()
    console.print(
        f"{summary['variant']}: {summary['model']}, layers {summary['layers']}, alpha {summary['alpha']:g}",
        markup=False,
    )
    print_judges(console, summary)
    console.print(
        "In brackets: 95 % intervals (Wilson for shares, bootstrap for means). cut: stopped at the token limit.",
        markup=False,
    )
    published = any(figure["published"] for figure in summary["figures"])
    if published and summary["prompts"].startswith("embedded:"):
        console.print("Published: the study's prompts and judge. This run used the embedded harmless requests; do not compare.")


def print_judged(summary: Row) -> None:
    """What bin/judge found: a run's summary, or a sweep's test responses; and what stopped a judge."""
    console = console_for_stdout()
    if "layers" in summary:
        print_summary(summary)
    else:
        console.print(f"{summary['variant']}: {summary['model']}, the test responses of a sweep", markup=False)
        print_judges(console, summary)


def print_judges(console: "Console", summary: Row) -> None:
    """A table for each judge, and how far judges agree."""
    for judge in summary["judges"]:
        figures = [figure for figure in summary["figures"] if figure["judge"] == judge["name"]]
        if figures:
            console.print(figures_table(figures))
        print_judge(console, judge)
    for entry in summary["agreement"]:
        print_agreement(console, entry)
    for name, reason in summary.get("stopped", {}).items():
        console.print(f"{name} stopped: {reason}. What was judged is kept; run again to go on.", markup=False)


def print_calibration(record: Row) -> None:
    """A judge's error rates, grade by grade."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = console_for_stdout()
    who = record["judge"]
    console.print(
        f"{who['name']} {who['model']} (rubric {who['rubric_hash']}) on {record['n']} labelled responses of {record['labels']}, "
        f"{record['missing']} of them not judged",
        markup=False,
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in (
        "scale",
        "grade",
        "n",
        "accuracy",
        "kappa",
        "weighted",
        "positives",
        "false positive rate",
        "false negative rate",
    ):
        table.add_column(name)
    for scale in ("compliance", "coherence", "declined"):
        rates = record[scale]
        first = [scale, "all", str(rates["n"]), estimate(rates["accuracy"]), number(rates["kappa"])]
        errors = [str(rates["positives"]), *_errors(rates)] if scale == "declined" else ["", "", ""]
        table.add_row(*first, number(rates.get("weighted_kappa")), *errors)
        for grade, found in rates.get("grades", {}).items():
            table.add_row("", grade, "", "", "", "", str(found["positives"]), *_errors(found))
    console.print(table)
    console.print("kappa: Cohen's; weighted: quadratic weights. In brackets: 95 % intervals (Wilson).", markup=False)


def _errors(rates: Row) -> list[str]:
    return [estimate(rates["false_positive"]), estimate(rates["false_negative"])]


def figures_table(figures: list[dict[str, Any]]) -> "Table":
    """One judge's figures."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    published = any(figure.get("published") for figure in figures)
    names = [*COLUMNS, *(name for name in CORRECTED if name in figures[0])]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("variant", "requests", "n", *names, *(["published"] if published else []), *COUNTS):
        table.add_column(name.replace("_", ", "), justify="right" if name in ("n", *COUNTS) else "left")
    for figure in figures:
        cells = [figure["variant"], figure["kind"], str(figure["n"]), *(estimate(figure[name]) for name in names)]
        cells += [_published(figure["published"])] if published else []
        table.add_row(*cells, *(str(figure[name]) for name in COUNTS.values()))
    return table


def print_judge(console: "Console", judge: Row) -> None:
    """Who judged, its error rates, and what is missing."""
    console.print(f"Judge: {judge['name']} = {judge['notice']}; rubric {judge['rubric_hash']}.", markup=False)
    console.print(f"  {calibration_line(judge['calibration'], judge['name'])}", markup=False, soft_wrap=True)
    if judge.get("missing"):
        console.print(
            f"  {judge['missing']} judgements are missing (errors are in scores.parquet); the same command asks for them again.",
            markup=False,
        )
    if (cost := judge.get("cost")) is not None:
        console.print(f"  cost of these judgements: {cost:.4f} in the price table's currency", markup=False)


def calibration_line(calibration: Row | None, name: str) -> str:
    """A judge's error rates in a line."""
    if calibration is None:
        return f"not calibrated: its error rates are not known. Measure them: bin/judge --calibrate labels.csv --judge {name}"
    parts = [
        f"{scale} exact {plain(calibration[scale]['accuracy'])}"
        for scale in ("compliance", "coherence")
        if calibration[scale]["n"]
    ]
    declined = calibration["declined"]
    if declined["n"]:
        false_positive, false_negative = plain(declined["false_positive"]), plain(declined["false_negative"])
        parts.append(f"declined: false positives {false_positive}, false negatives {false_negative}")
    return f"against {calibration['compliance']['n']} human labels ({calibration['labels']}): {'; '.join(parts)}"


def print_agreement(console: "Console", entry: Row) -> None:
    """How far two judges agree, or one with itself."""
    for scale in ("compliance", "coherence"):
        found = entry[scale]
        if len(entry["judges"]) == 1:
            console.print(
                f"{entry['judges'][0]} asked {found['repeats']} times, {scale}: the same grade every time for "
                f"{number(found['unanimous'])} of {found['n']} responses, standard deviation "
                f"{number(found['standard_deviation'])}, alpha {number(found['alpha'])}",
                markup=False,
                soft_wrap=True,
            )
            continue
        first, second = entry["judges"]
        console.print(
            f"{first} and {second}, {scale}: equal for {number(found['exact'])} of {found['n']} responses, kappa "
            f"{number(found['kappa'])} (quadratic weights {number(found['weighted_kappa'])}), ordinal alpha "
            f"{number(found['alpha'])}; "
            f"rows {first} 0, 0.5, 1, columns {second}: {found['table']}",
            markup=False,
        )


def estimate(value: Row) -> str:
    """A value with its interval, for rich, which reads brackets as markup."""
    return plain(value).replace("[", r"\[")


def plain(value: Row) -> str:
    """A value with its interval."""
    if value["value"] is None:
        return "-"
    if value["low"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def number(value: float | None) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def _published(published: Row | None) -> str:
    if published is None:
        return "-"
    figures = [f"{published[name]:.3f}" if published[name] is not None else "?" for name in ("compliance", "coherence")]
    return " / ".join(figures) + (f" ({published['note']})" if published["note"] else "")
