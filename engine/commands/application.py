"""What every command shares as a program: `-h` and `--version`, help that reads like a manual, examples under it."""

import importlib
import importlib.metadata
import re
import textwrap
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

PACKAGE = "refusal-rollout"
EXAMPLE_WIDTH = 72
SETTINGS = {"help_option_names": ["-h", "--help"]}
COMMANDS = (
    *("rollout", "sweep", "judge", "label", "power", "report", "new", "config", "list", "cache"),
    *("extract", "ablate", "regrow", "behave", "transfer", "sideeffects", "map", "study"),
    *("pair", "doctor", "edit", "audit", "compare", "replay", "reproduce", "export", "convert-qwen1", "serve", "chat", "bench"),
    *(
        "bench-rollout",
        "bench-runtime",
        "bench-sweep",
        "bench-compare",
        "bench-extract",
        "bench-judge",
        "bench-serve",
        "bench-lmeval",
    ),
    *("bench-edit", "bench-audit", "bench-overhead", "bench-cluster"),
)


class PlainFlags:
    """Options of a click command whose flags are shown without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for option in found:
            if getattr(option, "is_flag", False):
                option.metavar = ""
        return found


class Command(PlainFlags, TyperCommand):
    """A command whose help shows flags without a type and paragraphs as they are wrapped here, and which tells its version."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.help = _unwrapped(self.help or "")
        self.params.append(_version_option())


class Application(typer.Typer):
    """One command of bin/. `examples` are lines of a shell; a comment behind one says what it does."""

    def __init__(self, *examples: str) -> None:
        super().__init__(add_completion=False, context_settings=SETTINGS, rich_markup_mode=None)
        self.examples = examples

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        settings["context_settings"] = {**SETTINGS, **(settings.get("context_settings") or {})}
        shown = "\n".join(["\b", "Examples:", *(part for line in self.examples for part in _in_lines(line))])
        return super().command(name, cls=Command, epilog=shown, **settings)


class Commands(PlainFlags, TyperGroup):
    """Every command of bin/ by its name, imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"engine.commands.{cmd_name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each command with its whole first sentence."""
        found = [(name, self.get_command(ctx, name).help.partition("\n\n")[0]) for name in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(found)


def version() -> str:
    """The project's version, and that of the engine that it stands on."""
    found = []
    for name in (PACKAGE, "vllm", "torch", "transformers"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _version_option() -> Any:
    """The option --version as typer makes it of a function's parameter."""

    def show(asked: bool) -> None:
        if asked:
            print(version())
            raise typer.Exit

    def holder(
        show_version: Annotated[
            bool, typer.Option("--version", is_eager=True, expose_value=False, callback=show, help="Print the versions and stop.")
        ] = False,
    ) -> None: ...

    app = typer.Typer(add_completion=False)
    app.command()(holder)
    return typer.main.get_command(app).params[0]


def _in_lines(example: str) -> list[str]:
    """An example for a terminal of 80 columns: a long one goes on in the next line, as a shell reads it."""
    command, mark, comment = example.partition("   # ")
    lines = textwrap.wrap(command, EXAMPLE_WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
    shown = [f"  {line} \\" for line in lines[:-1]] + [f"  {lines[-1]}"]
    return [f"  # {comment}", *shown] if mark else shown


def _unwrapped(text: str) -> str:
    """Paragraphs as single lines: a docstring's line ends are not the terminal's."""
    return "\n\n".join(re.sub(r"\s*\n\s*", " ", part.strip()) for part in text.split("\n\n"))
