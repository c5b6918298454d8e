"""The factors of --vary: which settings vary, and their levels."""

from typing import Any

from engine.commands import cli
from engine.errors import EngineError


def parse_factors(given: list[str] | None) -> dict[str, dict[str, Any]] | None:
    """The factors of --vary, each with its levels by label; None where there is none. A level is a file, a value, or none."""
    from engine.configs.conditions import key_of

    found: dict[str, dict[str, Any]] = {}
    for text in given or []:
        name, equals, levels = text.partition("=")
        if not equals or key_of(name) in found:
            raise EngineError(f"--vary takes a factor once, with its levels: system=a.txt,b.txt; found '{text}'.")
        labelled = {level.rsplit("/", 1)[-1]: _level(level) for level in cli.items(levels)}
        if len(labelled) < len(cli.items(levels)):
            raise EngineError(f"--vary {name} names a level twice; found '{levels}'.")
        found[key_of(name)] = labelled
    return found or None


def _level(text: str) -> Any:
    said = cli.text_or_file(text, "--vary")
    return None if text == "none" else said if said != text else cli.toml_value(text)
