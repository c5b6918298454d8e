"""One run from a configuration to a summary in a run directory."""

from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.environment import describe
from engine.progress import say
from engine.rundir import check_space, open_run_dir
from engine.session import Session
from engine.stages import run_all

BYTES_PER_ROW = 8192  # of rollouts, shards and scores, generously


def run(config: RunConfig, path: Path, *, clean: bool = False) -> dict[str, Any]:
    """Run what is not done yet; returns the summary. Errors are raised before the run directory is touched where they can be."""
    session = Session(config)
    check_space(path, BYTES_PER_ROW * 2 * len(session.requests) + session.directions_bytes)
    run_dir = open_run_dir(path, session.identity(), describe(), clean=clean)
    say(f"run directory: {path}")
    return run_all(session, run_dir)


def write_checkpoint(config: RunConfig, run_path: Path, out: Path) -> dict[str, Any]:
    """The variant as a checkpoint in `out`, from the directions of a run directory; returns its edit record."""
    from engine.export import check_export, export

    session = Session(config)
    check_export(session, out)
    return export(session, open_run_dir(run_path, session.identity(), describe()), out)
