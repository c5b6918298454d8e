"""Carries a sweep out: directions, screen, race, selection, confirmation, and the files that come of them."""

from engine import store
from engine.rundir import RunDir, write_json
from engine.session import Session
from engine.sweep import result
from engine.sweep.figures import PRODUCTS, SCREEN, draw_products, draw_screen
from engine.sweep.inputs import SweepInputs
from engine.sweep.ray_engines import RayEngines
from engine.sweep.rows import Rollouts
from engine.sweep.screen import SCREEN_SCHEMA
from engine.sweep.search import Search, directions_of_sweep
from engine.sweep.work import Engines, LocalEngine


def conduct(session: Session, run_dir: RunDir, inputs: SweepInputs, count: int) -> None:
    """Everything that is not done yet, on `count` engines."""
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
                screen_table.merge(lambda row: (row["position"] or "", row["layer"] or -1, row["alpha"]))
            finalists = search.selected(search.finalists(search.raced(screened)))
        tested = search.confirmed(finalists)
    finally:
        rollouts.close()
    rows = result.confirm_rows(search, tested)
    result.write_tables(run_dir, search, rows)
    run_dir.file("winner.toml").write_text(result.winner_toml(search, finalists[0]), encoding="utf-8")
    draw_products(search.stages, run_dir.file(PRODUCTS))
    draw_screen(search.stages, session.config.sweep, run_dir.file(SCREEN))
    summary = result.summarise(search, tested, rows)
    write_json(run_dir.file("timing.json"), result.timing(rollouts))
    run_dir.run_stage(
        "summary", {"rows": len(rows), "of": id(rows)}, [], lambda: write_json(run_dir.file("summary.json"), summary)
    )
