"""Writes a report: one HTML file that needs no network, and a PNG of each plot beside it."""

import base64
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.display import study_tables
from engine.display.ability import bench_table
from engine.display.compare_tables import compare_tables
from engine.display.progress import say
from engine.display.run_tables import figure_tables
from engine.display.study_words import kind_sentences, pair_rank_sentences, reading_sentences, structure_sentence
from engine.display.sweep_tables import confirmation_table, marginal_table
from engine.display.table import Table
from engine.environment import commit
from engine.paths import write_bytes, write_text
from engine.report import tables
from engine.report.browser import as_script, browser_data
from engine.report.collect import STUDIES, RunData, files_shown, read_run
from engine.report.plots import Plot, plots_of
from engine.runs.files import MANIFEST, PLOT_FOLDER, PRODUCTS, REPORT, SCREEN
from engine.runs.manifest import read_manifest
from engine.runs.run_dir import RunDir

PROMPTS = 150  # of each kind, in the browser of responses
FOLDER = Path(__file__).parent
CHANGED = 4  # raise where the page itself changes: finished runs then get a new one


@dataclass(frozen=True)
class PageSection:
    """A run on the page."""

    run: RunData
    number: int
    sentences: list[str]
    tables: list[Table]
    details: list[Table]
    timing: Table
    figures: list[tuple[Plot, str]]  # with the PNG in base64
    browser: str | None
    browser_note: str
    identity: str


def write_report(paths: Sequence[Path], out: Path, *, prompts: int = PROMPTS) -> Path:
    """The page of one or several runs at `out`, and `plots/` beside it. Raises EngineError before anything is written."""
    runs = [read_run(path) for path in paths]
    out.parent.mkdir(parents=True, exist_ok=True)
    sections = [make_section(run, number, out.parent, prompts, several=len(runs) > 1) for number, run in enumerate(runs)]
    write_text(out, render(sections, tables.model_table(runs)))
    return out


def report(paths: Sequence[Path], out: Path, *, prompts: int = PROMPTS) -> Path:
    """`write_report` for a command: the page of a run in its own directory is a file that the run knows."""
    own = next((path for path in paths if (path / MANIFEST).is_file() and (path / REPORT).resolve() == out.resolve()), None)
    if own is None:
        return write_report(paths, out, prompts=prompts)
    run_dir = RunDir(own, read_manifest(own))
    with run_dir.locked(), run_dir.writing(REPORT, by="bin/report"):
        return write_report(paths, out, prompts=prompts)


def refresh(run_dir: RunDir) -> None:
    """report.html of a run directory, made again where what it shows has changed."""
    shown = files_shown(run_dir.manifest)
    run_dir.run_stage("report", lambda: _write(run_dir.path), reads=shown, settings={"page": CHANGED}, writes=[REPORT])


def make_section(run: RunData, number: int, folder: Path, prompts: int, *, several: bool) -> PageSection:
    """Everything a page says of a run; its plots are written into `folder`/plots."""
    data = browser_data(run, prompts)
    note = ""
    if data is not None:
        shown = len(data["prompts"])
        rest = f" {shown} of {data['total']} prompts; all of them are in rollouts.parquet." if shown < data["total"] else ""
        note = f"Grades by {data['judge'] or 'nobody yet'}.{rest}"
    figures = _figures(run, folder / PLOT_FOLDER, f"{number + 1}-" if several else "")
    identity = json.dumps(run.manifest["identity"], indent=2)
    script = as_script(data) if data else None
    timing = tables.timing_table(run)
    return PageSection(run, number, _sentences(run), _tables(run), _details(run), timing, figures, script, note, identity)


def render(sections: Sequence[PageSection], models: Table) -> str:
    """The page's HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        sections=sections,
        models=models,
        style=(FOLDER / "page.css").read_text(),
        script=(FOLDER / "page.js").read_text(),
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        commit=commit(),
    )


def _write(path: Path) -> None:
    page = write_report([path], path / REPORT)
    say(f"report: {page}")


def _figures(run: RunData, folder: Path, prefix: str) -> list[tuple[Plot, str]]:
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for plot, png in [*_sweep_figures(run), *plots_of(run)]:
        write_bytes(folder / f"{prefix}{plot.name}.png", png)
        found.append((plot, base64.b64encode(png).decode()))
    return found


def _sweep_figures(run: RunData) -> list[tuple[Plot, bytes]]:
    """The plots that a sweep drew itself."""
    plots = {
        PRODUCTS: Plot("effect-by-layer", "Effect by layer", "Compliance x coherence on the selection prompts.", dict),
        SCREEN: Plot("screen-by-layer", "Screen by layer", "bypass, induce and KL, with the filters' limits.", dict),
    }
    return [(plot, (run.path / name).read_bytes()) for name, plot in plots.items() if (run.path / name).is_file()]


def _sentences(run: RunData) -> list[str]:
    found = []
    singles = [row for row in tables.variant_rows(run) if row["k"] == 1]
    if (sentence := tables.sufficiency_sentence(singles)) is not None:
        found.append(sentence)
    if geometry := run.studies.get("geometry"):
        found += [*kind_sentences(geometry), structure_sentence(geometry), *pair_rank_sentences(geometry)]
    if reading := run.studies.get("reading"):
        found += [f"{line}." for line in reading_sentences(reading)]
    return found


def _tables(run: RunData) -> list[Table]:
    if run.is_sweep:
        marginal = marginal_table(run.summary)
        return [confirmation_table(run.summary), *([marginal] if marginal else [])]
    return figure_tables(run.summary) if run.summary else []


def _details(run: RunData) -> list[Table]:
    studies, found = run.studies, list[Table | None]()
    if "geometry" in studies:
        geometry = studies["geometry"]
        found += [
            study_tables.pair_rank_table(geometry),
            study_tables.estimator_table(geometry),
            study_tables.angle_table(geometry),
        ]
    if "effect" in studies:
        found.append(study_tables.effect_table(studies["effect"]))
    if "regrowth" in studies:
        found.append(study_tables.regrowth_table(studies["regrowth"]))
    if "transfer" in studies:
        other = studies["transfer"]
        found.append(study_tables.effect_table(other["effect"], f"On {other['other']}"))
    if "behaviour" in studies:
        found += [study_tables.divergence_table(studies["behaviour"]), study_tables.length_table(studies["behaviour"])]
    if "bench" in studies:
        found.append(bench_table(studies["bench"]))
    if "compare" in studies:
        found += compare_tables(studies["compare"])
    found += [study_tables.plain_table(name, study) for name, study in studies.items() if name not in STUDIES]
    return [table for table in found if table is not None]
