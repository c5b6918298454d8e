"""Which judge a name stands for: the rules, or a TOML file in configs/judges/ that names an endpoint or a local model."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from engine.configs.load import explain, read_extended, set_key
from engine.configs.schema import ModelConfig, Section
from engine.errors import EngineError
from engine.paths import CONFIG_DIR
from judging.endpoint import Endpoint
from judging.rubric import Rubric

OFFLINE = "offline"
JUDGE_DIR = CONFIG_DIR / "judges"


class LocalModel(Section):
    """A judge in an engine of our own."""

    model: ModelConfig
    vllm: dict[str, Any] = Field(default_factory=dict)
    """Passed to vLLM's engine under vLLM's own names."""


class JudgeFile(Section):
    """A judge. Exactly one of `endpoint` and `local` is there."""

    description: str = ""
    rubric: str | None = None
    """A text file with your own definitions of the grades; None takes judging/rubrics/grades.md."""
    endpoint: Endpoint | None = None
    local: LocalModel | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "JudgeFile":
        if (self.endpoint is None) == (self.local is None):
            raise ValueError("expected a table [endpoint] or a table [local], and not both")
        return self

    def read_rubric(self) -> Rubric:
        """The rubric. Raises EngineError for a file that cannot be read."""
        if self.rubric is None:
            return Rubric()
        try:
            return Rubric(Path(self.rubric).expanduser().read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"The rubric {self.rubric} cannot be read ({error}).") from error


def judge_names() -> list[str]:
    """Every judge there is by name."""
    return [OFFLINE, *sorted(path.stem for path in JUDGE_DIR.glob("*.toml"))]


def load_judge(name: str, overrides: Mapping[str, Any] | None = None) -> JudgeFile | None:
    """The file behind a judge's name or path; None for the rules. Raises EngineError for an unknown name or a wrong key.

    `overrides` maps dotted keys ("endpoint.model") to values and wins over the file.
    """
    if name == OFFLINE:
        return None
    path = Path(name).expanduser() if name.endswith(".toml") else JUDGE_DIR / f"{name}.toml"
    if not path.is_file():
        near = difflib.get_close_matches(name, judge_names(), n=1, cutoff=0.4)
        hint = f"Did you mean '{near[0]}'?" if near else f"There are {', '.join(judge_names())}, or the path of a TOML file."
        raise EngineError(f"Unknown judge '{name}'. {hint}")
    if path.stem.startswith(OFFLINE):
        raise EngineError(f"A judge's file cannot be called {path.name}: '{OFFLINE}' is the name of the rules. Rename it.")
    table = read_extended(path)
    for key, value in (overrides or {}).items():
        set_key(table, key.split("."), value)
    if isinstance(table.get("rubric"), str) and "rubric" not in (overrides or {}):
        table["rubric"] = str(path.parent / Path(table["rubric"]).expanduser())  # beside the file that names it
    try:
        return JudgeFile.model_validate(table)
    except ValidationError as error:
        raise EngineError("\n".join(f"{path.name}: {line}" for line in explain(error, JudgeFile))) from error


def label_of(name: str) -> str:
    """How rows name a judge: a path by its file's name."""
    return Path(name).stem if name.endswith(".toml") else name
