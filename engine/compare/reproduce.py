"""`bin/reproduce NAME`: the runs of a published table, and its figures beside ours: inside our interval, or outside."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.compare.published import CHOICE, Figure, Published, read_table, table_file, variant_of_figure
from engine.configs.load import load_config
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.environment import describe
from engine.errors import EngineError
from engine.models.locate import locate_model
from engine.paths import write_json
from engine.rollout.run import run
from engine.runs.schemas import Row
from engine.study.named import run_study

ARDITI = "arditi"
INSIDE, OUTSIDE, NO_INTERVAL, ABSENT = "inside", "outside", "no interval", "weights not at hand"
Runner = Callable[[RunConfig, Path], Mapping[str, Any]]


def reproduce(name: str, folder: Path, overrides: Mapping[str, Any], *, out: Path | None = None, run_one: Runner = run) -> Row:
    """Every figure of the table whose weights are at hand, made by its run in `folder`; the rest are named.

    overrides: keys of every run, such as the judge or the prompts. Raises EngineError where no weights are at hand.
    """
    file, table = table_file(name), read_table(name)
    configs = [_config(figure, file, overrides) for figure in table.figures]
    absent = {config.model.path: reason for config in configs if (reason := _absent(config)) is not None}
    if len({config.model.path for config in configs}) == len(absent):
        raise EngineError(f"None of the models of '{table.title}' is at hand. {next(iter(absent.values()))}")
    found: dict[str, Mapping[str, Any]] = {}
    rows = []
    for figure, config in zip(table.figures, configs, strict=True):
        if config.model.path in absent:
            rows.append(_row(figure, config, None))
            continue
        path = folder / _run_name(figure, config)
        if str(path) not in found:
            say(f"reproduce: {config.variant} in {path}")
            found[str(path)] = run_study(ARDITI, config, path, {}) if figure.measure in CHOICE else run_one(config, path)
        rows.append(_row(figure, config, found[str(path)]))
    result = {"table": name, **_head(table), "rows": rows, "absent": absent, **describe()}
    if out is not None:
        write_json(out, result)
    return result


def _config(figure: Figure, table: Path, overrides: Mapping[str, Any]) -> RunConfig:
    model = {} if figure.model is None else {"model.path": figure.model}
    return load_config(variant_of_figure(figure, table), {**model, **overrides})


def _absent(config: RunConfig) -> str | None:
    """Why a model cannot be had, in the words of what looks for it; None where it is at hand."""
    try:
        locate_model(config.model)
    except EngineError as error:
        return str(error)
    return None


def _run_name(figure: Figure, config: RunConfig) -> str:
    of_model = "" if figure.model is None else f"-{Path(figure.model).name}"
    return f"{config.variant}{of_model}" + (f"-{ARDITI}" if figure.measure in CHOICE else "")


def _head(table: Published) -> Row:
    return {"title": table.title, "source": table.source, "protocol": table.protocol, "differs": table.differs}


def _row(figure: Figure, config: RunConfig, result: Mapping[str, Any] | None) -> Row:
    """A figure beside ours; where the published one lies is judged by our interval alone."""
    ours = None if result is None else _ours(figure, result)
    return {
        "variant": config.variant,
        "model": Path(config.model.path).name,
        "figure": f"{figure.measure}, {figure.form}" if figure.measure not in CHOICE else figure.measure,
        "published": figure.published,
        "ours": ours,
        "the published is": ABSENT if result is None else _verdict(figure.published, ours),
        "note": figure.note or "-",
    }


def _ours(figure: Figure, result: Mapping[str, Any]) -> Row | None:
    """Our estimate; None where the run has none."""
    if figure.measure in CHOICE:
        chosen = result.get("chosen")
        value = None if chosen is None else chosen[figure.measure]
        return None if value is None else {"value": value, "low": None, "high": None, "n": 0, "method": ""}
    judge = result["judges"][0]["name"]
    for row in result["figures"]:
        is_base = row["form"] == "base"
        if (row["judge"], row["kind"], row["split"]) == (judge, figure.requests, "test") and is_base == (figure.form == "base"):
            return dict(row[figure.measure])
    return None


def _verdict(published: float, ours: Row | None) -> str:
    if ours is None or ours["value"] is None:
        return "not measured"
    if ours["low"] is None:
        return NO_INTERVAL
    return INSIDE if ours["low"] <= published <= ours["high"] else OUTSIDE


def at_hand(name: str) -> dict[str, str]:
    """Each model of a table, and whether its weights are at hand."""
    file, table = table_file(name), read_table(name)
    paths = {_config(figure, file, {}).model.path: _config(figure, file, {}) for figure in table.figures}
    return {path: "at hand" if _absent(config) is None else ABSENT for path, config in paths.items()}
