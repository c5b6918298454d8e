"""Tables of a sweep, in the form of the study's."""

from engine.display.numbers import estimate, number, p_value
from engine.display.run_tables import ACTING, judge_lines
from engine.display.table import Row, Table, View

NAMED = {"base": "no edit", "random": "control: random", "shuffled": "control: shuffled labels"}


def sweep_view(summary: Row, winner_file: str) -> View:
    """The confirmed variants with their intervals, how the choice was made, and where everything is."""
    how = "all at full length" if summary["exhaustive"] else "screened and raced"
    head = (
        f"{summary['variant']}: {summary['model']}, {summary['candidates']} single directions {how} on "
        f"{summary['selection_prompts']} selection prompts; rates on {summary['test_prompts']} test prompts that chose nothing"
    )
    failed = [f"failed: {failure['variant']}: {failure['reason']}" for failure in summary["failures"]]
    winner = f"Winner: {summary['winner']['name']}; run it with bin/rollout --variant {winner_file}"
    return [head, confirmation_table(summary), time_line(summary["timing"]), *failed, winner]


def confirmation_table(summary: Row) -> Table:
    """Every variant that reached the test prompts, with its tests against the base."""
    rows = [confirmed_cells(row) for row in summary["confirm"]]
    tested = sum(row.get("p") is not None for row in summary["confirm"])
    notes = [
        "In brackets: 95 % bootstrap intervals. p: exact McNemar against the base on the same prompts (complies fully and reads "
        f"well), Holm over {tested} variants.",
        *judge_lines(summary["judge"]),
    ]
    columns = ["variant", "directions", "k", "alpha", *ACTING, "on selection", "p (Holm)"]
    return Table("Confirmation on test prompts", columns, rows, notes)


def confirmed_cells(row: Row) -> list[str]:
    """One variant's cells; of one that failed, the reason."""
    if row["compliance"]["value"] is None:
        return [row["variant"], str(row.get("reason")), *["-"] * 7]
    base = row["kind"] == "base"
    size = ["-", "-"] if base else [str(row["k"]), f"{row['alpha']:g}"]
    figures = [estimate(row[name]) for name in ACTING]
    return [row["variant"], origin(row), *size, *figures, number(row.get("selection_product")), p_value(row.get("p_holm"))]


def origin(row: Row) -> str:
    """Where a variant's directions come from."""
    if row["kind"] in NAMED:
        return NAMED[row["kind"]]
    positions = {source.split("@")[0] for source in row["sources"]}
    layers = ", ".join(source.split("@")[1] for source in row["sources"])
    where = "" if positions == {"last"} else f" at {' '.join(sorted(positions))}"
    return f"layer{'s' if len(row['sources']) > 1 else ''} {layers}{where}"


def marginal_table(summary: Row) -> Table | None:
    """A table of what each further direction adds to the winner; None where one size was tested."""
    tested = [row for row in summary["confirm"] if row["kind"] in ("single", "subspace") and row["product"]["value"] is not None]
    best: dict[int, Row] = {}
    for row in sorted(tested, key=lambda row: -(row.get("selection_product") or 0)):
        best.setdefault(row["k"], row)
    if len(best) < 2:
        return None
    rows, before = [], None
    for size, row in sorted(best.items()):
        gain = "-" if before is None else f"{row['product']['value'] - before:+.3f}"
        rows.append([str(size), row["variant"], *(estimate(row[name]) for name in ACTING), gain])
        before = row["product"]["value"]
    note = "Of each k the variant that was best on the selection prompts; figures on the test requests."
    return Table("Marginal gain of further directions", ["k", "variant", *ACTING, "gain in product"], rows, [note], keys=2)


def time_line(timing: Row) -> str:
    """Where the time went, and what the sweep waited for."""
    return (
        f"{timing['generated_tokens']:,} tokens. Screen {timing.get('screen_seconds', 0):.0f} s, generation "
        f"{timing['generation_seconds']:.0f} s ({timing['swap_seconds']:.1f} s of it swaps), likelihoods "
        f"{timing.get('likelihood_seconds', 0):.0f} s; the judge worked {timing['judge_seconds']:.1f} s and was waited for "
        f"{timing['waited_for_judge_seconds']:.1f} s: bound by {timing['bound_by']}."
    )
