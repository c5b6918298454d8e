"""A study by its name: a file NAME.py of this folder with `make_NAME(study, *, option=default, ...)` is one, and needs no more.

What it returns is written as NAME.json into the run directory. Its `rows`, a list of flat tables, are what `bin/study NAME` and
the report show. Studies that take more than options have a command each (`engine.study.jobs`).
"""

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.configs.schema import RunConfig
from engine.errors import EngineError
from engine.paths import file_hash
from engine.report.collect import STUDIES
from engine.runs.files import JUDGED, LIKELIHOODS, MANIFEST, REPORT, ROLLOUTS, SCORES, SUMMARY, TIMES, TIMING
from engine.runs.schemas import Row
from engine.study.jobs import opened

PACKAGE = "engine.study"
TAKEN = {Path(file).stem for file in (MANIFEST, SUMMARY, JUDGED, REPORT, LIKELIHOODS, ROLLOUTS, SCORES, TIMES, TIMING)}
TAKEN |= {"directions"}  # the name of a stage


def study_files() -> dict[str, Path]:
    """Every study that is called by its name, and its file; none is imported."""
    folders = importlib.import_module(PACKAGE).__path__
    files = sorted(path for folder in folders for path in Path(folder).glob("*.py"))
    return {path.stem: path for path in files if path.stem not in STUDIES and _makes_study(path)}


def run_study(name: str, config: RunConfig, path: Path, options: Mapping[str, Any]) -> Row:
    """NAME.json of the run directory `path`, made again where its inputs, its options or its file have changed.

    Raises EngineError for a name or an option that is not known, before a model loads.
    """
    file = file_of(name)
    make = getattr(importlib.import_module(f"{PACKAGE}.{name}"), f"make_{name}")
    chosen = chosen_options(name, make, options)
    with opened(config, path) as study:
        return study.run(name, {"given": chosen, "code": file_hash(file)}, lambda: make(study, **chosen))


def file_of(name: str) -> Path:
    """A study's file. Raises EngineError where there is none, and for a name whose JSON is another file of a run."""
    files = study_files()
    if name in TAKEN:
        raise EngineError(f"A study cannot be called '{name}', as another file of a run directory is. Rename its file.")
    if name not in files:
        known = f"There are {', '.join(files)}." if files else "There is none yet."
        raise EngineError(f"Unknown study '{name}': no engine/study/{name}.py has make_{name}(study, *, ...). {known}")
    return files[name]


def chosen_options(name: str, make: Callable[..., Any], options: Mapping[str, Any]) -> Row:
    """The study's options: those given, the rest by default. Raises EngineError for one that it does not take."""
    _, *parameters = inspect.signature(make).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    if unknown := sorted(options.keys() - defaults.keys()):
        raise EngineError(f"The study '{name}' has no option '{unknown[0]}'; it takes {', '.join(defaults) or 'none'}.")
    chosen = defaults | dict(options)
    if missing := [option for option, value in chosen.items() if value is inspect.Parameter.empty]:
        raise EngineError(f"The study '{name}' needs a value for '{missing[0]}': add --option {missing[0]}=VALUE.")
    return chosen


def _makes_study(path: Path) -> bool:
    """Whether a file defines `make_NAME(study, *, ...)`."""
    functions = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    made = [node.args.args for node in functions if node.name == f"make_{path.stem}"]
    return [[argument.arg for argument in arguments] for arguments in made] == [["study"]]
