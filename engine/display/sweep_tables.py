"""Tables of a sweep, in the form of the study's."""

from collections.abc import Sequence

from engine.display.numbers import estimate, number, p_value
from engine.display.run_tables import ACTING, NO_KINDS, few_kinds, judge_lines
from engine.display.table import Row, Table, View

NAMED = {"base": "no edit", "random": "control: random", "shuffled": "control: shuffled labels"}
CONTROLS = ("shuffled", "random")
SHOWN_CONTROLS = 2  # of each sort, the best


def sweep_view(summary: Row, winner_file: str) -> View:
    """The confirmed variants with their intervals, how the choice was made, and where everything is."""
    how = "all at full length" if summary["exhaustive"] else "screened and raced"
    head = (
        f"{summary['variant']}: {summary['model']}, {summary['candidates']} single directions {how} on "
        f"{summary['selection_prompts']} selection prompts; rates on {summary['test_prompts']} test prompts that chose nothing"
    )
    failed = [f"failed: {failure['variant']}: {failure['reason']}" for failure in summary["failures"]]
    winner = f"Winner: {summary['winner']['name']}; run it with bin/rollout --variant {winner_file}"
    folder = f"{winner_file.rpartition('/')[0]}/variants/" if "/" in winner_file else "variants/"
    others = f"Each variant of these tables is a file in {folder}, which every command takes as --variant."
    return [head, confirmation_table(summary), front_table(summary), time_line(summary["timing"]), *failed, winner, others]


def front_table(summary: Row) -> Table:
    """The variants to choose among: none is better than one of these in every figure."""
    rows = [
        [point["variant"], str(point["k"]), *(number(point[name]) for name in ("compliance", "coherence", "kl"))]
        for point in summary.get("front", [])
    ]
    note = (
        "Of the variants generated at full length on the selection prompts, those that none of the others betters: no less "
        "compliance and coherence, no more KL of the next token on answered prompts, and a gain in one (-: not screened, so KL "
        "is left out)."
    )
    return Table("To choose among", ["variant", "k", "compliance", "coherence", "KL"], rows, [note])


def confirmation_table(summary: Row) -> Table:
    """Every variant that reached the test prompts, with its tests against the base, and the best of the controls."""
    rows = [confirmed_cells(row) for row in shown_rows(summary["confirm"])]
    tested = sum(row.get("p_holm") is not None for row in summary["confirm"])
    notes = [
        "In brackets: 95 % intervals, the prompt's kind as the unit. product: the mean of compliance x coherence. "
        f"means: the product of means. p: sign flips kind by kind against the base, Holm over {tested} variants.",
        *worth_lines(summary),
        *control_lines(summary),
        optimism_line(summary["optimism"]),
        *judge_lines(summary["judge"]),
    ]
    columns = ["variant", "directions", "k", "alpha", *ACTING, "means", "on selection", "product less the base's", "p (Holm)"]
    return Table("Confirmation on test prompts", columns, rows, notes)


def worth_lines(summary: Row) -> list[str]:
    """How many kinds the test prompts are of, and how many independent prompts the winner's are worth."""
    row = next(row for row in summary["confirm"] if row["variant"] == summary["winner"]["name"])
    if row["kinds"] is None:
        return [NO_KINDS]
    few = few_kinds(row["kinds"])
    if row["effective_n"] is None:
        return few
    worth = f"{row['n']} prompts of {row['kinds']} kinds: the winner's products have ICC {number(row['icc'])}"
    return [*few, f"{worth} and are worth {row['effective_n']:.0f} independent prompts."]


def shown_rows(confirm: Sequence[Row]) -> list[Row]:
    """All but the controls, and of those the best of each sort."""
    found = [row for row in confirm if row["kind"] not in CONTROLS]
    for kind in CONTROLS:
        drawn = [row for row in confirm if row["kind"] == kind]
        found += sorted(drawn, key=lambda row: -(row["product"]["value"] or 0))[:SHOWN_CONTROLS]
    return found


def control_lines(summary: Row) -> list[str]:
    """A sentence for each sort of control: how many did as well as the winner."""
    products = {row["variant"]: row["product"] for row in summary["confirm"]}
    return [
        f"{summary['winner']['name']} against controls ({NAMED[row['kind']].removeprefix('control: ')}, {row['n']} drawn, each "
        f"chosen as it was): p {p_value(row['p'])}; the best has product {estimate(products[row['best']])}."
        for row in summary["against_controls"]
    ]


def optimism_line(optimism: Row) -> str:
    """A sentence on what choosing by the same prompts added."""
    return (
        "The winner's gain over the base on the prompts that chose it, less that on the test prompts (the winner's curse): "
        f"{estimate(optimism)}."
    )


def confirmed_cells(row: Row) -> list[str]:
    """One variant's cells; of one that failed, the reason."""
    if row["compliance"]["value"] is None:
        return [row["variant"], str(row.get("reason")), *["-"] * 9]
    base = row["kind"] == "base"
    size = ["-", "-"] if base else [str(row["k"]), f"{row['alpha']:g}"]
    figures = [estimate(row[name]) for name in (*ACTING, "product_of_means")]
    against = [number(row.get("selection_product")), estimate(row.get("difference")), p_value(row.get("p_holm"))]
    return [row["variant"], origin(row), *size, *figures, *against]


def origin(row: Row) -> str:
    """Where a variant's directions come from."""
    if row["kind"] == "base":
        return NAMED["base"]
    positions = {source.split("@")[0] for source in row["sources"]}
    layers = ", ".join(source.split("@")[1] for source in row["sources"])
    where = "" if positions == {"last"} else f" at {' '.join(sorted(positions))}"
    control = f"{NAMED[row['kind']]}, " if row["kind"] in CONTROLS else ""
    return f"{control}layer{'s' if len(row['sources']) > 1 else ''} {layers}{where}"


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
