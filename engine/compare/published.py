"""Published tables as data: configs/published/NAME.toml, each a table of figures with the runs that would give them again."""

import difflib
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from engine.configs.load import explain
from engine.configs.schema import Section
from engine.errors import EngineError
from engine.paths import CONFIG_DIR

FOLDER = CONFIG_DIR / "published"
RATES = ("declined", "complied", "compliance", "coherence", "product", "product_of_means")
CHOICE = ("bypass", "induce", "kl")


class Figure(Section):
    """One number of a table."""

    variant: str
    """A variant in configs/, or a TOML beside the table: what is run for it."""
    measure: str
    """Of a run: declined, complied, compliance, coherence, product, product_of_means. Of the procedure: bypass, induce, kl."""
    published: float
    model: str | None = None
    """Another model than the variant's: a repository or folder."""
    form: Literal["base", "edited"] = "edited"
    """Whose responses the figure is of."""
    requests: Literal["declined", "answerable"] = "declined"
    note: str = ""

    @model_validator(mode="after")
    def _known(self) -> "Figure":
        if self.measure not in (*RATES, *CHOICE):
            raise ValueError(f"measure {self.measure!r} is not known; expected one of {', '.join((*RATES, *CHOICE))}")
        return self


class Published(Section):
    """A table: where it was published, how its figures were made, and why ours may differ."""

    title: str
    source: str
    protocol: str
    differs: list[str] = Field(min_length=1)
    """Why ours may differ, a sentence each."""
    figures: list[Figure] = Field(min_length=1)


def table_names() -> list[str]:
    """Every published table, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def table_file(name: str) -> Path:
    """A table's file: a name, or the path of a TOML. Raises EngineError for neither."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise EngineError(f"Table {name} does not exist.")
        return path
    if name not in table_names():
        near = difflib.get_close_matches(name, table_names(), n=3, cutoff=0.4) or table_names()
        raise EngineError(f"Unknown table '{name}': there is no configs/published/{name}.toml. There are: {', '.join(near)}.")
    return FOLDER / f"{name}.toml"


def read_table(name: str) -> Published:
    """A table by its name. Raises EngineError with every problem of its file on a line."""
    file = table_file(name)
    try:
        return Published.model_validate(tomllib.loads(file.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        raise EngineError("\n".join(f"{file.name}: {line}" for line in explain(error, Published))) from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{file.name} is not valid TOML in UTF-8: {error}.") from error


def variant_of_figure(figure: Figure, table: Path) -> str:
    """What a figure's variant is called by: a TOML's path is relative to the table's file."""
    beside = table.parent / figure.variant
    return str(beside) if figure.variant.endswith(".toml") and beside.is_file() else figure.variant
