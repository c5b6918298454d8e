"""Every command as a program: its help at 80 columns, its examples, its version; and one name for all of them."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from engine.commands.__main__ import app
from engine.commands.application import COMMANDS

ROOT = Path(__file__).parents[3]


def help_of(name: str) -> str:
    found = CliRunner().invoke(app, [name, "-h"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert found.exit_code == 0, found.output
    return found.output


def module_of(name: str) -> object:
    return importlib.import_module(f"engine.commands.{name.replace('-', '_')}")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_80_columns_and_cuts_nothing(name: str) -> None:
    text = help_of(name)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_flag_shows_no_type(name: str) -> None:
    assert "<bool>" not in help_of(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_a_command_is_one_that_it_takes(name: str) -> None:
    examples = module_of(name).app.examples  # type: ignore[attr-defined]
    assert examples
    for line in examples:
        program, *arguments = shlex.split(line, comments=True)
        other = module_of(program.removeprefix("bin/"))
        command = typer.main.get_command(other.app)  # type: ignore[attr-defined]
        command.make_context(program, arguments)  # raises for an option or an argument that it does not know


def test_every_launcher_has_its_command_and_every_command_its_launcher() -> None:
    texts = {file.name: file.read_text() for file in (ROOT / "bin").iterdir() if file.is_file()}
    launched = {name for name, text in texts.items() if re.search(r"engine\.commands\.", text)}
    assert launched == set(COMMANDS)


def test_the_version_names_the_project_and_its_engine() -> None:
    found = CliRunner().invoke(app, ["rollout", "--version"])
    assert re.match(r"refusal-rollout \S+, vllm \S+, torch \S+, transformers \S+\n$", found.output)


def test_the_one_name_lists_every_command() -> None:
    found = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    listed = set(re.findall(r"^  ([a-z][a-z0-9-]+) ", found.output.partition("Commands:")[2], re.MULTILINE))
    assert listed == set(COMMANDS)


def test_an_unknown_command_is_named() -> None:
    found = CliRunner().invoke(app, ["rolout"])
    assert found.exit_code == 2
    assert "rolout" in found.output
