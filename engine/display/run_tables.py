"""Tables of a run and of its judges: figures by variant and kind of request, judges' errors, and how far judges agree."""

from collections.abc import Sequence

from engine.display.group_tables import asked, judges_table, language_table
from engine.display.numbers import estimate, number, p_value, published
from engine.display.table import Row, Table, View
from judging.kinds import FEW

ACTING = ("compliance", "coherence", "product")
RATES = ("declined", *ACTING)
BIASED = ("declined", "compliance", "product")
CORRECTED = ("declined_corrected", "complied_corrected")
ERRORS = {"false positives": "false_positive", "false negatives": "false_negative"}
COUNTS = {"cut": "truncated", "empty": "empty", "unscored": "missing"}
NO_KINDS = "No kinds are named: each prompt counts by itself, and near-duplicates were not looked for (--kinds auto does)."
BRACKETS = (
    "In brackets: 95 % intervals, the prompt's kind as the unit (Wilson's at the effective n). product: the mean of compliance x "
    "coherence, as the study's. p: sign flips kind by kind. cut: stopped at the token limit."
)
UNLIKE = "Published: the study's prompts and judge. This run used the embedded harmless requests; do not compare."


def summary_view(summary: Row) -> View:
    """A run: a table of every variant and kind for each judge, and the published figures."""
    made = f"layers {summary['layers']}, alpha {summary['alpha']:g}" if summary["layers"] else "a checkpoint of others"
    head = f"{summary['variant']}: {summary['model']}, {made}"
    compared = any(figure["published"] for figure in summary["figures"]) and summary["prompts"].startswith("embedded:")
    return [head, *judges_view(summary), BRACKETS, *([UNLIKE] if compared else [])]


def judged_view(summary: Row) -> View:
    """A view of what bin/judge found: a run's summary, or a sweep's test responses."""
    if summary["kind"] == "run":
        return summary_view(summary)
    return [f"{summary['variant']}: {summary['model']}, the test responses of a sweep", *judges_view(summary), BRACKETS]


def judges_view(summary: Row) -> View:
    """Each judge's tables, how far judges agree, and what stopped one."""
    agreed = [line for entry in summary["agreement"] for line in agreement_lines(entry)]
    stopped = [
        f"{name} stopped: {reason}. What was judged is kept; run again to go on."
        for name, reason in summary.get("stopped", {}).items()
    ]
    return [*figure_tables(summary), *agreed, *stopped]


def figure_tables(summary: Row) -> list[Table]:
    """A judge's rates, its errors where they are known, bounds where scores are missing, and kinds apart where they are split."""
    found: list[Table | None] = [judges_table(summary)]
    for judge in summary["judges"]:
        figures = [figure for figure in summary["figures"] if figure["judge"] == judge["name"]]
        if figures:
            found.append(_figures(figures, f"Judge: {judge['name']}", [*kind_lines(figures), *judge_lines(judge)]))
            found += [outcome_table(figures), language_table(figures)]
            found += [bias_table(figures, summary.get("differential", [])), bounds_table(figures)]
    found += [split_table(summary.get("unseen_kinds", [])), condition_table(summary.get("conditions", []))]
    return [table for table in found if table is not None]


def condition_table(differences: Sequence[Row]) -> Table | None:
    """Each variant's rates under a condition less those under the first; None where nothing varied."""
    if not differences:
        return None
    scales = ("declined", "compliance", "product")
    rows = [
        [row["variant"], asked(row)]
        + [cell for name in scales for cell in (estimate(_estimate_of(row[name])), p_value(row[name]["p"]))]
        for row in differences
    ]
    columns = ["variant", "requests", *(name for scale in scales for name in (scale, "p"))]
    return Table("Conditions: less the first, the same prompts", columns, rows, ["p: sign flips kind by kind."], keys=2)


def _estimate_of(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "p"}


def _figures(figures: Sequence[Row], title: str, notes: Sequence[str]) -> Table:
    rates = [*RATES, "product_of_means", *(name for name in CORRECTED if name in figures[0])]
    rates += ["harm"] if any(figure.get("harm") for figure in figures) else []
    rates = [name for name in rates if any(_known(figure.get(name)) for figure in figures)] or list(RATES)
    study = any(figure.get("published") for figure in figures)
    rows = [
        [figure["variant"], asked(figure), str(figure["n"]), *_worth(figure), *(estimate(figure.get(name)) for name in rates)]
        + _against(figure)
        + ([published(figure["published"])] if study else [])
        + [str(figure[name]) for name in COUNTS.values()]
        for figure in figures
    ]
    names = [name.replace("_c", ", c").replace("_", " ") for name in rates]
    kinds = ["kinds", "ICC", "effective n"]
    more = ["product less the base's", "p", *(["published"] if study else []), *COUNTS]
    return Table(title, ["variant", "requests", "n", *kinds, *names, *more], rows, notes, keys=2)


def _known(figure: Row | None) -> bool:
    return figure is not None and figure["value"] is not None


def _worth(figure: Row) -> list[str]:
    """Kinds, the products' intra-class correlation, and how many independent prompts they are worth."""
    worth = figure["effective_n"]["product"]
    return [str(figure["kinds"] or "-"), number(figure["icc"]["product"]), "-" if worth is None else f"{worth:.0f}"]


def _against(figure: Row) -> list[str]:
    paired = figure["against_base"]
    if paired is None:
        return ["-", "-"]
    found = {name: value for name, value in paired["product"].items() if name != "p"}
    return [estimate(found), p_value(paired["product"]["p"])]


def kind_lines(figures: Sequence[Row]) -> list[str]:
    """Warnings on the unit of the intervals: no kinds named, or too few."""
    if any(figure["kinds"] is None for figure in figures):
        return [NO_KINDS]
    few = few_kinds(min(figure["kinds"] for figure in figures))
    return few + [sample_line(figure) for figure in figures if figure.get("samples")]


def few_kinds(count: int) -> list[str]:
    """A warning for intervals over few kinds; nothing where there are enough."""
    return [f"Only {count} kinds: intervals over so few are not to be relied on."] if count < FEW else []


def sample_line(figure: Row) -> str:
    """How much of a figure's variance is sampling, and how much is between prompts."""
    found = figure["samples"]
    parts = {"declined": found.get("declined"), "product": found.get("product", found)}
    said = [f"{name} within {number(part['within'])}, between {number(part['between'])}" for name, part in parts.items() if part]
    return f"{figure['variant']}, {asked(figure)}: {found['prompts']} prompts sampled several times. Variance: {'; '.join(said)}."


def outcome_table(figures: Sequence[Row]) -> Table | None:
    """What became of the requests: the share of each outcome; None where the judge gives none."""
    known = [figure for figure in figures if figure.get("outcomes")]
    if not known:
        return None
    names = [name for name in known[0]["outcomes"] if any(figure["outcomes"][name] for figure in known)]
    rows = [
        [figure["variant"], asked(figure), *(number(figure["outcomes"][name] / figure["n"]) for name in names)]
        for figure in known
    ]
    note = (
        "Shares of all responses; definitions are in judging/rubrics/outcomes.md. declines is what the rate of declining counts."
    )
    return Table(
        "What became of the requests", ["variant", "requests", *(n.replace("_", " ") for n in names)], rows, [note], keys=2
    )


def bias_table(figures: Sequence[Row], differential: Sequence[Row]) -> Table | None:
    """The judge's errors on labels of each figure's source, and the figure less them; None where there are no labels."""
    known = [figure for figure in figures if figure.get("judge_bias")]
    if not known:
        return None
    rows = []
    for figure in known:
        found = figure["judge_bias"]
        labels = f"{found['n']} of {'this variant' if found['own'] else 'other ' + found['source'] + ' responses'}"
        shown = [estimate(found[side][name]) for name in BIASED for side in ("bias", "corrected")]
        rows.append([figure["variant"], asked(figure), labels, *shown])
    columns = ["variant", "requests", "labels", *(f"{name}{part}" for name in BIASED for part in (": bias", ", corrected"))]
    note = "Bias: judge less rater, by source, never pooled. Corrected where the labels are of this variant; a dash elsewhere."
    name = known[0]["judge"]
    return Table("The judge's errors", columns, rows, [note, *differential_lines(differential, name)], keys=2)


def differential_lines(differential: Sequence[Row], judge: str) -> list[str]:
    """A sentence for each scale on which the judge errs differently on an edited variant than on the base."""
    return [
        f"The judge errs differently on {row['variant']} than on the base: {row['scale']} {estimate(row['difference'])}. That "
        "part of the difference is the judge's."
        for row in differential
        if row["judge"] == judge
    ]


def bounds_table(figures: Sequence[Row]) -> Table | None:
    """Rates with all missing scores at 0 and at 1; None where none is missing."""
    missing = [figure for figure in figures if figure["bounds"]]
    if not missing:
        return None
    rows = [
        [figure["variant"], asked(figure), str(figure["missing"]), *(_between(figure["bounds"][name]) for name in RATES)]
        for figure in missing
    ]
    note = "A judge does not fail at random: a content filter may strike what complies. The truth is between these bounds."
    return Table("With the missing scores at 0 and at 1", ["variant", "requests", "unscored", *RATES], rows, [note], keys=2)


def _between(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def split_table(differences: Sequence[Row]) -> Table | None:
    """Rates on kinds that made no directions, less those on kinds that did; None where kinds are not split."""
    if not differences:
        return None
    rows = [[row["judge"], row["variant"], row["kind"], *(estimate(row[name]) for name in BIASED)] for row in differences]
    title = "Kinds that made no directions, less those that did"
    return Table(title, ["judge", "variant", "requests", *BIASED], rows, keys=3)


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
        unknown = judge.get("cost_unknown", 0)
        least, rest = ("at least ", f" {unknown} judgements were not counted by the endpoint.") if unknown else ("", "")
        lines.append(f"Cost of these judgements: {least}{cost:.4f} in the price table's currency.{rest}")
    return lines


def calibration_line(calibration: Row | None, name: str) -> str:
    """A judge's errors by source in a sentence, or how to measure them."""
    if calibration is None:
        return f"Not calibrated: its error rates are not known. Measure them: bin/judge --calibrate labels.csv --judge {name}"
    parts = [
        f"{_responses_of(entry)} {estimate(entry['bias']['compliance'], 2)} ({entry['n']} labels)"
        for entry in calibration["by_source"]
        if not entry["variant"]
    ]
    if not parts:
        return f"Its errors by source are not known: no source has enough labels in {calibration['labels']}."
    return f"Its compliance less the label's, by whose response it is: {'; '.join(parts)}."


def _responses_of(entry: Row) -> str:
    """Whose responses, and to which kind of request where the labels say."""
    return f"{entry['source']} to {entry['requests']} requests" if entry.get("requests") else str(entry["source"])


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
    return [head, Table("", columns, rows, [note], keys=2), source_table(record["by_source"])]


def source_table(entries: Sequence[Row]) -> Table:
    """A judge's bias on each source's labels."""
    rows = [
        [entry["source"], entry["variant"] or "all", str(entry["n"]), *(estimate(entry["bias"][name]) for name in BIASED)]
        for entry in entries
    ]
    note = "Judge less label, the mean. Sources with fewer than ten labels are left out."
    return Table("By source", ["source", "variant", "n", *BIASED], rows, [note], keys=2)


def _errors(rates: Row) -> list[str]:
    return [estimate(rates[key]) for key in ERRORS.values()]


def agreement_lines(entry: Row) -> list[str]:
    """How far two judges agree, or one with itself."""
    lines = []
    for scale in ("compliance", "coherence"):
        found = entry[scale]
        if not found["n"]:
            continue  # a classifier of refusals or harm gives no grades
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
