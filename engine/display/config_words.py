"""The keys of a configuration for a terminal and as a table."""

from collections.abc import Sequence
from typing import Protocol

from engine.display.table import Table, View

COLUMNS = ("key", "value", "from", "default", "meaning")


class Described(Protocol):
    """A key as engine.configs.keys has it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def default(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def meaning(self) -> str: ...


def config_view(keys: Sequence[Described], *, in_words: bool) -> View:
    """Each key as a line and a sentence, for a terminal; one table for every other form."""
    if not in_words:
        return [Table("", COLUMNS, [[key.name, key.value, key.source, key.default, key.meaning] for key in keys])]
    lines: list[str] = []
    for key in keys:
        default = f"; default {key.default}" if key.source != "default" and key.default else ""
        lines += [f"{key.name} = {key.value}  ({key.source}{default})", *([key.meaning] if key.meaning else []), ""]
    return lines[:-1]
