"""How the answer of bin/power looks."""

from engine.display.table import Row, Table, View


def power_view(found: Row) -> View:
    """The setting, then a row for each way to have enough prompts."""
    setting = found["setting"]
    told = (
        f"Rate {setting['base']:.3f} against {setting['base'] + setting['difference']:.3f} on the same prompts; ICC "
        f"{setting['icc']:.3f} within kinds, correlation of both on one prompt {setting['correlation']:.2f}."
    )
    lines = [told]
    if run := found["run"]:
        lines.append(
            f"From the run (judge {run['judge']}, {run['variant']}): {run['kinds']} kinds, {run['rows']:.1f} prompts each; its "
            f"own difference is {run['difference']:+.3f}."
        )
    return [*lines, power_table(found)]


def power_table(found: Row) -> Table:
    """Power at the given size, and the sizes that reach 80 %."""
    kinds, rows = found["kinds"], found["rows_per_kind"]
    table = []
    if found["power"] is not None:
        seen = f"power {found['power']:.2f}; 80 % from a difference of {found['detectable']:.3f}"
        table.append(["as given", str(kinds), str(rows), str(kinds * rows), seen])
        more = found["rows_needed"]
        why = "power 0.80" if more else "too few kinds: 256 prompts of each do not do it"
        table.append(["more prompts a kind", str(kinds), str(more or "-"), str(more * kinds if more else "-"), why])
    needed = found["kinds_needed"]
    enough = "power 0.80" if needed else "more than 100,000"
    table.append(
        ["more kinds" if rows > 1 else "more prompts", str(needed or "-"), str(rows), str(found["prompts_needed"] or "-"), enough]
    )
    note = "Two-sided test at 0.05 of the kinds' mean differences, paired by prompt; by simulation with a fixed seed."
    return Table("Prompts that the difference takes", ["size", "kinds", "prompts a kind", "prompts", "sees"], table, [note])
