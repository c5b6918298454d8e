"""A run's own page, made again where what it shows has changed. What draws it is imported when it is drawn: half a second."""

from pathlib import Path

from engine.display.progress import say
from engine.report.collect import files_shown
from engine.runs.files import REPORT
from engine.runs.run_dir import RunDir

CHANGED = 5  # raise where the page itself changes: finished runs then get a new one


def refresh(run_dir: RunDir) -> None:
    """report.html of a run directory, made again where what it shows has changed."""
    shown = files_shown(run_dir.manifest)
    run_dir.run_stage("report", lambda: _write(run_dir.path), reads=shown, settings={"page": CHANGED}, writes=[REPORT])


def _write(path: Path) -> None:
    from engine.report.page import write_report

    page = write_report([path], path / REPORT)
    say(f"report: {page}")
