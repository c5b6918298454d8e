"""Carries a sweep out: directions, screen, race, selection, confirmation, and the files that come of them."""

from collections.abc import Mapping
from functools import partial

from engine.display.progress import say
from engine.evaluate.candidates import BASE, Candidate
from engine.evaluate.ray_engines import RayEngines
from engine.evaluate.rollouts import Rollouts
from engine.evaluate.rules import RayRules, rules_here
from engine.evaluate.tasks import Engines, LocalEngine
from engine.paths import hash_of, write_json, write_text
from engine.runs import parquet
from engine.runs.files import (
    FRONT,
    LIKELIHOODS,
    PRODUCTS,
    ROLLOUTS,
    SCORES,
    SCREEN,
    SCREENED,
    SUMMARY,
    SWEEP,
    TIMING,
    VARIANTS,
    VIEWS,
    WINNER,
)
from engine.runs.run_dir import RunDir
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.grader import Grader
from engine.sweep import front, result
from engine.sweep.figures import draw_front, draw_products, draw_screen
from engine.sweep.inputs import SweepInputs
from engine.sweep.screen import SCREEN_SCHEMA, run_screen
from engine.sweep.search import Search, grids_of_sweep


def conduct(session: Session, run_dir: RunDir, inputs: SweepInputs, count: int, grader: Grader) -> None:
    """Everything that is not done yet, on `count` engines, chosen by what `grader` says."""
    run_dir.set_aside([ROLLOUTS, LIKELIHOODS, VIEWS, SCREENED, SCORES])
    grids = grids_of_sweep(session, run_dir)
    grids[0].listed()  # a subspace whose directions are dependent is named before anything is generated
    engines: Engines = LocalEngine(session) if count == 1 else RayEngines(session, count)
    rollouts = Rollouts(session, run_dir, engines, grader, rules_here() if count == 1 else RayRules())
    search, *controls = [Search(session, inputs, grid, rollouts) for grid in grids]
    screen_table = parquet.ShardedTable(run_dir.file(SCREENED), SCREEN_SCHEMA, ["variant_hash"], made_by=run_dir.made_by)
    try:
        screened: Mapping[str, Row] = {}
        if not session.config.sweep.exhaustive:
            with run_dir.writing(SCREENED, by="screen"):
                screened = run_screen(session, grids, inputs, screen_table, rollouts)
        finalists = search.searched(screened)
        chosen = [chosen_by(control, screened) for control in controls]
        tested = search.confirmed(finalists, chosen)
        search.stages += [row for control in controls for row in control.stages if row["kind"] != BASE]
    finally:
        rollouts.close()
    _write(session, run_dir, search, tested)


def chosen_by(control: Search, screened: Mapping[str, Row]) -> Candidate:
    """What a control's search chooses, on the prompts and by the rules that chose the winner."""
    best = control.searched(screened)[0]
    say(f"control {best.name}: chosen as the winner was")
    return best


def _write(session: Session, run_dir: RunDir, search: Search, tested: list[Candidate]) -> None:
    """Everything that comes of a search; `tested` is the base, the finalists with the winner first, and the controls."""
    rows = result.confirm_rows(search, tested)
    summary = result.summarise(search, tested, rows)
    kept = front.kept_variants(search, tested, summary["front"])
    files = {f"{VARIANTS}/{front.variant_name(search, candidate)}.toml": candidate for candidate in kept}
    with run_dir.writing(
        SWEEP, SCORES, ROLLOUTS, LIKELIHOODS, VIEWS, WINNER, *files, PRODUCTS, SCREEN, FRONT, TIMING, by="search"
    ):
        result.write_tables(run_dir, search, rows)
        run_dir.file(VARIANTS).mkdir(exist_ok=True)
        for name, candidate in (files | {WINNER: tested[1]}).items():
            write_text(run_dir.file(name), front.variant_toml(search, candidate))
        draw_products(search.stages, run_dir.file(PRODUCTS))
        draw_screen(search.stages, session.config.sweep, run_dir.file(SCREEN))
        draw_front(search.stages, summary["front"], run_dir.file(FRONT))
        write_json(run_dir.file(TIMING), result.timing(search.rollouts))
    work = partial(write_json, run_dir.file(SUMMARY), summary)
    run_dir.run_stage("summary", work, settings={"summary": hash_of(summary)}, writes=[SUMMARY])
