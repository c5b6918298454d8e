"""bin/list: the variants, judges and tasks there are, and the runs with their state."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.commands import cli
from engine.errors import EngineError

WHAT = ("runs", "variants", "judges", "tasks")

app = cli.Application("bin/list", "bin/list runs --runs /data/runs", "bin/list judges --format markdown")


@app.command("list")
def list_(
    what: Annotated[str | None, typer.Argument(metavar="WHAT", help=f"One of {', '.join(WHAT)}; all by default.")] = None,
    runs: Annotated[Path, typer.Option(help="The folder of run directories.")] = Path("runs"),
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """List variants, judges, lm-eval tasks of this project, and the runs of a folder with their state."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        if what not in (None, *WHAT):
            raise EngineError(f"bin/list takes one of {', '.join(WHAT)}; found '{what}'.")
        from engine.display.console import show
        from engine.display.listing_words import listing_view

        found = {name: FINDERS[name](runs) for name in WHAT if what in (None, name)}
        show(listing_view(found, in_words=form == "text"), form, found)


def _runs(folder: Path) -> list[dict[str, Any]]:
    from engine.runs.listing import runs_below

    return [asdict(run) for run in runs_below(folder)]


def _variants(folder: Path) -> list[dict[str, Any]]:
    from engine.configs.load import load_config, variant_names

    configs = [load_config(name) for name in variant_names()]
    beside = [load_config(path.name) for path in sorted(Path().glob("*.toml")) if _is_variant(path)]
    return [
        {"name": config.variant, "model": config.model.path, "layers": config.directions.layers, "is": config.description}
        for config in (*configs, *beside)
    ]


def _is_variant(path: Path) -> bool:
    """Whether a TOML file of the current folder is a variant's: it names a model, and is valid."""
    from engine.configs.load import load_config, read_extended

    try:
        return "model" in read_extended(path) and bool(load_config(path.name))
    except EngineError:
        return False


def _judges(folder: Path) -> list[dict[str, Any]]:
    from engine.configs.judges import judge_names, load_judge

    files = {name: load_judge(name) for name in judge_names()}
    rules = "documented rules and word lists, no language model"
    return [{"name": name, "is": rules if file is None else file.description} for name, file in files.items()]


def _tasks(folder: Path) -> list[dict[str, Any]]:
    from engine.lmeval.catalogue import OWN

    names = sorted(path.stem for path in OWN.glob("*.yaml"))
    return [*({"name": name, "is": "of this project"} for name in names), {"name": "...", "is": "lm-eval's own, by their names"}]


FINDERS = {"runs": _runs, "variants": _variants, "judges": _judges, "tasks": _tasks}


if __name__ == "__main__":
    app(prog_name="bin/list")
