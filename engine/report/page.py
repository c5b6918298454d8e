"""Writes a report: one HTML file that needs no network, and each plot and the study's table beside it for a paper."""

import base64
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.display import map_tables, study_tables
from engine.display.ability import bench_table
from engine.display.compare_tables import compare_tables
from engine.display.progress import say
from engine.display.run_tables import figure_tables
from engine.display.study_words import kind_sentences, pair_rank_sentences, reading_sentences, structure_sentence
from engine.display.sweep_tables import confirmation_table, front_table, marginal_table
from engine.display.table import FORMATS, Row, Table, as_latex
from engine.environment import commit
from engine.errors import EngineError
from engine.paths import write_bytes, write_text
from engine.report import tables
from engine.report.browser import browser_data, packed
from engine.report.collect import STUDIES, RunData, read_run
from engine.report.headline import Headline, headline
from engine.report.plots import Plot, plots_of
from engine.report.terms import TERMS
from engine.runs.files import FRONT, MANIFEST, PLOT_FOLDER, PRODUCTS, REPORT, SCREEN
from engine.runs.manifest import read_manifest
from engine.runs.run_dir import RunDir

FOLDER = Path(__file__).parent
SCRIPTS = ("tables.js", "page.js")
COPIED = ("csv", "markdown", "latex")  # forms that a reader can take a table in
MIME = {"svg": "image/svg+xml", "png": "image/png"}


@dataclass(frozen=True)
class PageSection:
    """A run on the page."""

    run: RunData
    number: int
    sentences: list[str]
    tables: list[Table]
    details: list[Table]
    timing: Table
    headline: Headline | None
    figures: list[tuple[Plot, str]]  # with the picture as a data: address
    browser: str | None
    browser_note: str
    identity: str


def write_report(paths: Sequence[Path], out: Path, *, prompts: int | None = None) -> Path:
    """The page of one or several runs at `out`; `plots/` and the study's table as LaTeX beside it.

    prompts: of each kind in the browser of responses; None shows all. Of several runs one that cannot be read is named and left
    out. Raises EngineError before anything is written.
    """
    runs = read_runs(paths)
    out.parent.mkdir(parents=True, exist_ok=True)
    sections = [make_section(run, number, out.parent, prompts, several=len(runs) > 1) for number, run in enumerate(runs)]
    write_text(out.with_suffix(".tex"), as_latex(tables.study_table(runs)) + "\n")
    write_text(out, render(sections, tables.model_table(runs)))
    return out


def read_runs(paths: Sequence[Path]) -> list[RunData]:
    """Each run directory once. One that cannot be read is named on stderr; raises EngineError where it is all there is."""
    runs, problems = list[RunData](), list[EngineError]()
    for path in dict.fromkeys(path.resolve() for path in paths):
        try:
            runs.append(read_run(path))
        except EngineError as error:
            problems.append(error)
    if not runs:
        raise problems[0]
    for problem in problems:
        say(f"report: left out: {problem}")
    return runs


def report(paths: Sequence[Path], out: Path, *, prompts: int | None = None) -> Path:
    """`write_report` for a command: the page of a run in its own directory is a file that the run knows."""
    own = next((path for path in paths if (path / MANIFEST).is_file() and (path / REPORT).resolve() == out.resolve()), None)
    if own is None:
        return write_report(paths, out, prompts=prompts)
    run_dir = RunDir(own, read_manifest(own))
    with run_dir.locked(), run_dir.writing(REPORT, by="bin/report"):
        return write_report(paths, out, prompts=prompts)


def make_section(run: RunData, number: int, folder: Path, prompts: int | None, *, several: bool) -> PageSection:
    """Everything a page says of a run; its plots are written into `folder`/plots."""
    data = browser_data(run, prompts)
    return PageSection(
        run=run,
        number=number,
        sentences=_sentences(run),
        tables=_tables(run),
        details=_details(run),
        timing=tables.timing_table(run),
        headline=headline(run, number),
        figures=_figures(run, folder / PLOT_FOLDER, f"{number + 1}-" if several else ""),
        browser=packed(data) if data else None,
        browser_note=_browser_note(data) if data else "",
        identity=json.dumps(run.manifest["identity"], indent=2),
    )


def _browser_note(data: Row) -> str:
    shown, judges = len(data["prompts"]), ", ".join(data["judges"]) or "nobody yet"
    rest = f" {shown} of {data['total']} prompts; all of them are in rollouts.parquet." if shown < data["total"] else ""
    return f"Grades by {judges}.{rest}"


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
        script="\n".join((FOLDER / name).read_text() for name in SCRIPTS),
        terms=TERMS,
        forms=COPIED,
        in_forms=_in_forms,
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        commit=commit(),
    )


def _in_forms(table: Table) -> str:
    """A table in the forms that it can be copied in, as JSON that is safe inside a script element: no `<` can end it."""
    forms = {name: FORMATS[name](table) for name in COPIED}
    return json.dumps(forms, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _figures(run: RunData, folder: Path, prefix: str) -> list[tuple[Plot, str]]:
    """Each plot with its picture; every format of it is written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for plot, pictures in [*_sweep_figures(run), *plots_of(run)]:
        for form, content in pictures.items():
            write_bytes(folder / f"{prefix}{plot.name}.{form}", content)
        form = "svg" if "svg" in pictures else "png"
        found.append((plot, f"data:{MIME[form]};base64,{base64.b64encode(pictures[form]).decode()}"))
    return found


def _sweep_figures(run: RunData) -> list[tuple[Plot, dict[str, bytes]]]:
    """The plots that a sweep drew itself."""
    plots = {
        PRODUCTS: Plot("effect-by-layer", "Effect by layer", "Compliance x coherence on the selection prompts.", dict),
        FRONT: Plot("front", "To choose among", "None of the joined variants is beaten in both figures.", dict),
        SCREEN: Plot("screen-by-layer", "Screen by layer", "bypass, induce and KL, with the filters' limits.", dict),
    }
    return [(plot, {"png": (run.path / name).read_bytes()}) for name, plot in plots.items() if (run.path / name).is_file()]


def _sentences(run: RunData) -> list[str]:
    found = []
    singles = [row for row in tables.variant_rows(run) if row["k"] == 1]
    if (sentence := tables.sufficiency_sentence(singles)) is not None:
        found.append(sentence)
    if geometry := run.studies.get("geometry"):
        found += [*kind_sentences(geometry), structure_sentence(geometry), *pair_rank_sentences(geometry)]
    if found_map := run.studies.get("map"):
        found += map_tables.map_sentences(found_map)
    if reading := run.studies.get("reading"):
        found += [f"{line}." for line in reading_sentences(reading)]
    return found


def _tables(run: RunData) -> list[Table]:
    if run.is_sweep:
        marginal = marginal_table(run.summary)
        return [confirmation_table(run.summary), *([marginal] if marginal else []), front_table(run.summary)]
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
    if "map" in studies:
        found += map_tables.tables_of(studies["map"])
    if "bench" in studies:
        found.append(bench_table(studies["bench"]))
    if "compare" in studies:
        found += compare_tables(studies["compare"])
    found += [study_tables.plain_table(name, study) for name, study in studies.items() if name not in STUDIES]
    return [table for table in found if table is not None]
