"""Every command that a message, a docstring or a README names is there, and takes the options it is named with."""

import importlib
import re
from pathlib import Path

import pytest
import typer

from engine.commands.application import COMMANDS

ROOT = Path(__file__).parent.parent
PACKAGES = ("engine", "extraction", "editing", "judging")
# A command, and what follows it in the same sentence up to the next command, bracket or column of a table.
NAMED = re.compile(
    r"(?<![\w/.}])bin/([a-z][a-z0-9-]*[a-z0-9])(?![\w/*-])((?: +(?:--[a-z][a-z-]*|(?!bin/)[^\s`'\"|(\-][^\s`'\"|(]*))*)"
)
OF_ALL = {"--help", "--version", "--"}
SCRIPTS = ("setup", "lock", "locks", "test", "lint", "refusal-rollout")  # not commands of engine.commands


def texts() -> dict[str, str]:
    files = [file for package in PACKAGES for form in ("*.py", "*.md") for file in sorted((ROOT / package).rglob(form))]
    files += [ROOT / "README.md", *sorted((ROOT / "configs").glob("*.md")), *sorted((ROOT / "configs").rglob("*.toml"))]
    # What Python joins of neighbouring strings is one sentence.
    return {str(file.relative_to(ROOT)): re.sub(r'"\s*\n\s*f?"', "", file.read_text()) for file in files}


def options_of(name: str) -> set[str]:
    module = importlib.import_module(f"engine.commands.{name.replace('-', '_')}")
    command = typer.main.get_command(module.app)
    return OF_ALL | {text for option in command.params for text in (*option.opts, *option.secondary_opts)}


FOUND = {
    (name, flag)
    for text in texts().values()
    for name, rest in NAMED.findall(text)
    for flag in [*re.findall(r"(?<=\s)--[a-z][a-z-]*", re.split(r" -- |[.;:,] ", rest)[0]), ""]
}


@pytest.mark.parametrize("name", sorted({name for name, _ in FOUND}))
def test_a_command_that_is_named_is_there_and_takes_its_options(name: str) -> None:
    flags = {flag for other, flag in FOUND if other == name} - {""}
    if name in SCRIPTS:
        assert (ROOT / "bin" / name).exists()
        return
    assert name in COMMANDS
    assert flags - options_of(name) == set()


def test_the_commands_are_named_often_enough_that_this_looks_at_something() -> None:
    assert len({name for name, _ in FOUND}) > 20
    assert len(FOUND) > 80
