"""The tables of a report, as columns and rows of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.display.study_words import p_value, triple
from engine.display.summary import calibration_line, number
from engine.report.collect import RunData

SUFFICIENT, PARTIAL = 0.7, 0.3  # of compliance, at a coherence that is worth reading
READABLE = 0.8
ACTING = ("compliance", "coherence", "product")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of the page; `note` stands below it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


def summary_tables(run: RunData) -> list[Table]:
    """One table a judge: every variant and kind with intervals, and the published figures."""
    if not run.summary or run.is_sweep:
        return []
    found = []
    for judge in run.summary["judges"]:
        figures = [figure for figure in run.summary["figures"] if figure["judge"] == judge["name"]]
        rows = [
            [
                figure["variant"],
                figure["kind"],
                str(figure["n"]),
                *(triple(figure[name], 3) for name in ("declined", *ACTING)),
                _published(figure.get("published")),
                *(str(figure[name]) for name in ("truncated", "empty", "missing")),
            ]
            for figure in figures
        ]
        columns = ["variant", "requests", "n", "declined", *ACTING, "published", "cut", "empty", "unscored"]
        if all(row[columns.index("published")] == "-" for row in rows):
            rows = [[cell for name, cell in zip(columns, row, strict=True) if name != "published"] for row in rows]
            columns.remove("published")
        note = f"{judge['notice']}; rubric {judge['rubric_hash']}. {calibration_line(judge['calibration'], judge['name'])}"
        found.append(Table(f"Judge: {judge['name']}", columns, rows, note))
    return found


def sweep_table(run: RunData) -> Table | None:
    """A sweep's confirmation."""
    if not run.is_sweep:
        return None
    rows = [
        [
            row["variant"],
            row["kind"],
            ", ".join(row["sources"]) or "-",
            str(row["k"] or "-"),
            f"{row['alpha']:g}",
            *(interval(row, name) for name in ACTING),
            number(row.get("selection_product")),
            p_value(row.get("p_holm")),
        ]
        for row in run.summary["confirm"]
    ]
    columns = ["variant", "kind", "layers", "k", "alpha", *ACTING, "on selection", "p (Holm)"]
    judge = run.summary["judge"]
    note = (
        f"{run.summary['test_prompts']} test requests that chose nothing. p: exact McNemar against the base. "
        f"Judge: {judge['notice']}; {calibration_line(judge.get('calibration'), judge['name'])}"
    )
    return Table("Sweep: confirmation", columns, rows, note)


def marginal_table(run: RunData) -> Table | None:
    """What each further direction adds: topN subspaces beside the winner, from a sweep."""
    if not run.is_sweep:
        return None
    tested = [row for row in run.summary["confirm"] if row["kind"] in ("single", "subspace") and row.get("product") is not None]
    best: dict[int, Row] = {}
    for row in sorted(tested, key=lambda row: -(row.get("selection_product") or 0)):
        best.setdefault(row["k"], row)
    if len(best) < 2:
        return None
    rows, before = [], None
    for size, row in sorted(best.items()):
        gain = "-" if before is None else f"{row['product'] - before['product']:+.3f}"
        rows.append([str(size), row["variant"], *(interval(row, name) for name in ACTING), gain])
        before = row
    note = "Of each k the variant that was best on the selection prompts; figures on the test requests."
    return Table("Marginal gain of further directions", ["k", "variant", *ACTING, "gain in product"], rows, note)


def timing_table(run: RunData) -> Table:
    """Seconds by stage, and what judging cost."""
    rows = [[name, f"{stage['seconds']:.1f}", stage["finished"]] for name, stage in run.manifest["stages"].items()]
    for name, report in run.manifest.get("judging", {}).items():
        if report:
            rows.append([f"judging by {name}", *[", ".join(f"{key} {value}" for key, value in report.items()), ""]])
    judge = run.summary.get("judge", {})
    if judge.get("cost") is not None:
        rows.append([f"judging by {judge['name']}", f"cost {judge['cost']:.4f} in the price table's currency", ""])
    if run.timing is not None:
        rows.append(["sweep", ", ".join(f"{key} {value}" for key, value in run.timing.items()), ""])
    return Table("Cost and timing", ["stage", "seconds", "finished (UTC)"], rows)


def model_table(runs: Sequence[RunData]) -> Table:
    """The study's cross-model table: is a single direction sufficient, and how far compliance goes."""
    rows = []
    for model in dict.fromkeys(run.model for run in runs):
        own = [run for run in runs if run.model == model]
        tested = [row for run in own for row in variant_rows(run)]
        structures = [run.studies["geometry"]["structure"] for run in own if run.studies.get("geometry", {}).get("structure")]
        peak = max(tested, key=lambda row: row["compliance"]["value"] or 0, default=None)
        product = max(tested, key=chosen_by, default=None)
        published = [text for run in own if (text := _published(run.config.get("published"))) != "-"]
        rows.append(
            [
                model,
                sufficient([row for row in tested if row["k"] == 1])[0],
                "-" if peak is None else f"{triple(peak['compliance'], 3)} ({peak['name']})",
                "-" if product is None else f"{triple(product['product'], 3)} ({product['name']})",
                structures[0]["answer"] if structures else "not measured",
                "; ".join(published) or "-",
            ]
        )
    columns = [
        "model",
        "one direction sufficient?",
        "peak compliance",
        "product of the chosen",
        "directions over layers",
        "published",
    ]
    note = (
        f"Sufficient: the compliance of a single direction whose coherence is at least {READABLE:g}; yes from {SUFFICIENT:g}, "
        f"no below {PARTIAL:g}, both with the 95 % interval, else partial; of several, the one chosen on selection "
        "prompts. Peak: the highest of all tested, so its interval flatters. Different judges and prompts do not compare."
    )
    return Table("Across models", columns, rows, note)


def variant_rows(run: RunData) -> list[Row]:
    """Every edited variant of a run or sweep with its figures on the declined kind, by the first judge."""
    if run.is_sweep:
        return [
            {"name": row["variant"], "k": row["k"], "selection": row.get("selection_product")}
            | {name: _estimate(row, name) for name in ACTING}
            for row in run.summary["confirm"]
            if row["kind"] in ("single", "subspace") and row.get("compliance") is not None
        ]
    if not run.summary:
        return []
    first = run.summary["judges"][0]["name"]
    size = run.config["directions"]["k"] or len(run.summary["layers"])
    return [
        {"name": figure["variant"], "k": size} | {name: figure[name] for name in ACTING}
        for figure in run.summary["figures"]
        if figure["judge"] == first and figure["form"] != "base" and figure["kind"] == "declined"
    ]


def sufficient(singles: Sequence[Row]) -> tuple[str, Row | None]:
    """Whether a single direction suffices, by the rule that the table's note states, and the direction it was decided on."""
    if not singles:
        return "no single direction tested", None
    readable = [row for row in singles if (row["coherence"]["value"] or 0) >= READABLE]
    if not readable:
        return "no (text breaks)", max(singles, key=chosen_by)
    best = max(readable, key=chosen_by)
    rate = best["compliance"]
    low, high = (rate["value"] if bound is None else bound for bound in (rate["low"], rate["high"]))
    return "yes" if low >= SUFFICIENT else "no" if high < PARTIAL else "partial", best


def chosen_by(row: Row) -> float:
    """What variants are ranked by: the product on selection prompts, where a sweep chose; else on the test requests."""
    selection = row.get("selection")
    return float((row["product"]["value"] if selection is None else selection) or 0)


def interval(row: Row, name: str) -> str:
    """A figure with its interval, from columns name, name_low and name_high."""
    return triple(_estimate(row, name), 3)


def _estimate(row: Row, name: str) -> Row:
    return {"value": row.get(name), "low": row.get(f"{name}_low"), "high": row.get(f"{name}_high")}


def _published(published: Row | None) -> str:
    if published is None:
        return "-"
    parts = [f"{name} {published[name]:.3f}" for name in ("compliance", "coherence") if published.get(name) is not None]
    return ", ".join([*parts, *([published["note"]] if published.get("note") else [])]) or "-"


def judge_note(judge: Row) -> str:
    """Who judged, and how far it can be trusted."""
    return f"Judge: {judge['notice']}; {calibration_line(judge.get('calibration'), judge['name'])}"
