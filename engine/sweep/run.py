"""One sweep from a configuration to its summary in a run directory."""

from pathlib import Path
from typing import Any

from engine import store
from engine.config import RunConfig
from engine.progress import say
from engine.rundir import RunDir, check_space, file_hash, is_finished, open_run_dir, write_json
from engine.session import Session
from engine.stages import read_summary
from engine.sweep import result
from engine.sweep.grid import check_grid
from engine.sweep.inputs import SweepInputs, check_inputs, with_selection
from engine.sweep.ray_engines import RayEngines, check_engines
from engine.sweep.rows import Rollouts
from engine.sweep.screen import SCREEN_SCHEMA
from engine.sweep.search import Search, directions_of_sweep
from engine.sweep.table import PLOT, draw_products
from engine.sweep.work import Engines, LocalEngine
from extraction.prompts import resolve

BYTES_PER_ROW = 4096


def run_sweep(config: RunConfig, path: Path, *, engines: int | None = None, clean: bool = False) -> dict[str, Any]:
    """Run what is not done yet; returns the summary. What can be checked is checked before the run directory is touched."""
    config, pairs = with_selection(config)
    session = Session(config)
    inputs = SweepInputs(pairs, [request for request in session.requests if request.kind == "declined"])
    check_grid(session)
    session.check_swappable()
    check_inputs(config, session.pairs, inputs)
    count = check_engines(engines, int(config.vllm.get("tensor_parallel_size", 1)))
    identity = sweep_identity(session)
    if not is_finished(path, identity):
        session.check_prompts()
        session.render(inputs.selection, "selection prompts")
        check_space(path, BYTES_PER_ROW * 40 * (len(inputs.pairs) + len(inputs.test)) + session.directions_bytes)
    run_dir = open_run_dir(path, identity, clean=clean)
    say(f"run directory: {path}")
    with run_dir.locked():
        if not is_finished(path, identity) or read_summary(run_dir)["failures"]:
            _search(session, run_dir, inputs, count)
        return read_summary(run_dir)


def sweep_identity(session: Session) -> dict[str, Any]:
    """What makes a sweep this sweep: the run's identity, with what is tried and what chooses."""
    data = session.config.data
    identity = session.identity
    hashes = dict(identity["data_hashes"])
    if data.selection_pairs is not None:
        hashes["selection_pairs"] = file_hash(resolve(data.selection_pairs))
    config = session.config.model_dump(mode="json")
    config.pop("directions")  # a sweep has its own
    return {**identity, "config": config, "data_hashes": hashes}


def _search(session: Session, run_dir: RunDir, inputs: SweepInputs, count: int) -> None:
    grid = directions_of_sweep(session, run_dir)
    grid.listed()  # a subspace whose directions are dependent is named before anything is generated
    engines: Engines = LocalEngine(session) if count == 1 else RayEngines(session, count)
    rollouts = Rollouts(session, run_dir, engines)
    search = Search(session, inputs, grid, rollouts)
    try:
        if session.config.sweep.exhaustive:
            finalists = search.exhaust()
        else:
            screen_table = store.ShardedTable(run_dir.file("screen.parquet"), SCREEN_SCHEMA, key=["variant_hash"])
            try:
                screened = search.screened(screen_table)
            finally:
                screen_table.merge(lambda row: (row["position"], row["layer"], row["alpha"]))
            finalists = search.selected(search.finalists(search.raced(screened)))
        tested = search.confirmed(finalists)
    finally:
        rollouts.close()
    rows = result.confirm_rows(search, tested)
    result.write_tables(run_dir, search, rows)
    run_dir.file("winner.toml").write_text(result.winner_toml(search, finalists[0]), encoding="utf-8")
    base = next(row for row in search.stages if row["kind"] == "base" and row["stage"] == "selection")
    draw_products(search.stages, base, run_dir.file(PLOT))
    summary = result.summarise(search, tested, rows)
    write_json(run_dir.file("timing.json"), result.timing(rollouts))
    run_dir.run_stage(
        "summary", {"rows": len(rows), "of": id(rows)}, [], lambda: write_json(run_dir.file("summary.json"), summary)
    )
