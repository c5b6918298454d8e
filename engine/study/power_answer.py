"""The answer of `bin/power`: a setting from flags or a run, and what it takes to see the difference."""

from dataclasses import asdict
from pathlib import Path

from engine.errors import EngineError
from engine.runs.schemas import Row
from engine.study.power import MOST, Power, Setting, check_setting

FIGURES = ("declined", "complied")
LEAST_KINDS = 2
DEFAULTS: Row = {"icc": 0.0, "correlation": Setting.correlation, "rows": 1, "kinds": None}


def answer(asked: Row, run_dir: Path | None, figure: str, variant: str | None) -> Row:
    """Power and smallest visible difference at the size that is given, and the kinds or prompts that 80 % power takes.

    asked: difference, base, icc, correlation, kinds and rows; None for what comes from the run, or from a default.
    Raises EngineError for what cannot be, before anything is simulated.
    """
    if figure not in FIGURES:
        raise EngineError(f"--figure takes one of {', '.join(FIGURES)}; found '{figure}'.")
    if run_dir is None and asked["base"] is None:
        raise EngineError("Give a run directory, or the base's rate with --base 0.7.")
    known: Row = {} if run_dir is None else _of_run(run_dir, figure, variant)
    given = {name: value for name, value in asked.items() if value is not None}
    chosen: Row = DEFAULTS | known | given
    setting = check_setting(Setting(chosen["base"], chosen["difference"], chosen["icc"], chosen["correlation"]))
    rows, kinds = max(round(chosen["rows"]), given.get("rows", 1)), chosen["kinds"]
    for flag, value in (("--kinds", kinds), ("--rows-per-kind", given.get("rows", rows))):
        if value is not None and not 1 <= value <= MOST:
            raise EngineError(f"{flag} takes a number from 1 to {MOST}; found {value}.")
    return {"setting": asdict(setting), "run": known or None, **_found(Power(setting), kinds, rows)}


def _of_run(run_dir: Path, figure: str, variant: str | None) -> Row:
    from engine.study.power_run import run_setting

    return asdict(run_setting(run_dir, figure, variant))


def _found(power: Power, kinds: int | None, rows: int) -> Row:
    needed = power.kinds_needed(rows)
    found: Row = {
        "rows_per_kind": rows,
        "kinds": kinds,
        "kinds_needed": needed,
        "prompts_needed": None if needed is None else needed * rows,
        "power": None,
        "detectable": None,
        "rows_needed": None,
    }
    if kinds is not None and kinds >= LEAST_KINDS:
        found |= {
            "power": power.at(kinds, rows),
            "detectable": power.detectable(kinds, rows),
            "rows_needed": power.rows_needed(kinds),
        }
    return found
