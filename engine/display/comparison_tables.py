"""Tables of several judges on the same labels: agreement, what one calls what the other calls, and whom each puts first."""

from engine.display.numbers import estimate, number
from engine.display.table import Row, Table, View

MOST = 12  # pairs of outcomes shown
FIGURES = ("declined", "compliance", "product")


def comparison_view(comparison: Row | None) -> View:
    """The tables of a comparison; nothing where one judge stands alone."""
    if comparison is None:
        return []
    tables = [agreement_table(comparison), *outcome_tables(comparison), ranking_table(comparison)]
    return [table for table in tables if table is not None]


def agreement_table(comparison: Row) -> Table:
    """How far every two judges agree on grades and on what declines."""
    rows = []
    for pair in comparison["pairs"]:
        for scale in ("compliance", "declined"):
            found = pair[scale]
            if found["n"]:
                rows.append([*pair["judges"], scale, str(found["n"]), estimate(found["equal"]), number(found["kappa"])])
    note = "kappa: Cohen's, with quadratic weights for compliance. In brackets: 95 % intervals (Wilson)."
    title = f"Every two judges on the same {comparison['n']} labels"
    return Table(title, ["judge", "other", "scale", "n", "equal", "kappa"], rows, [note], keys=3)


def outcome_tables(comparison: Row) -> list[Table]:
    """Where two judges give outcomes: the pairs of outcomes in which they differ, the most frequent first."""
    tables = []
    for pair in comparison["pairs"]:
        apart = [row for row in pair["outcomes"] if row["first"] != row["second"]]
        if apart:
            first, second = pair["judges"]
            rows = [[row["first"], row["second"], str(row["n"])] for row in apart[:MOST]]
            total = sum(row["n"] for row in pair["outcomes"])
            note = f"They differ on {sum(row['n'] for row in apart)} of {total}."
            tables.append(Table(f"What {first} calls what {second} calls", [first, second, "n"], rows, [note], keys=2))
    return tables


def ranking_table(comparison: Row) -> Table | None:
    """The labelled variants in each judge's order; None where the labels name none."""
    rows = [
        [
            judge,
            str(place),
            row["variant"],
            str(row["n"]),
            *(estimate(row[name]) for name in FIGURES),
        ]
        for judge, ranked in comparison["ranking"].items()
        for place, row in enumerate(ranked, start=1)
    ]
    if not rows:
        return None
    note = "Declined requests alone, the best first: by the product, or by what declines where a judge gives no grades."
    columns = ["judge", "place", "variant", "n", "declined", "compliance", "product"]
    return Table("Whom each judge puts first", columns, rows, [note], keys=3)
