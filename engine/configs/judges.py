"""Which judge a name stands for: the rules, or a file in configs/judges/: a TOML that names an endpoint, a local model or a
classifier, or a Python file whose function gives the grades."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from engine.configs.load import explain, read_extended, set_key
from engine.configs.schema import ModelConfig, Section
from engine.configs.vllm_keys import check_plain
from engine.errors import EngineError
from engine.paths import CONFIG_DIR, user_path
from judging.classifier import Classifier
from judging.endpoint import Endpoint
from judging.rubric import Rubric

OFFLINE = "offline"
TEXT = "-text"  # behind the name of rules that know nothing of the base and grade the text alone: another judge
OF_A_JUDGE = ("dtype", "quantization", "seed")  # ours where an engine swaps
JUDGE_DIR = CONFIG_DIR / "judges"
SUFFIXES = (".toml", ".py")
BESIDE = ("rubric", "endpoint.ca_file", "classifier.template")  # paths that are beside the file that names them


class OwnModel(Section):
    """A judge's model, loaded here."""

    model: ModelConfig
    vllm: dict[str, Any] = Field(default_factory=dict)
    """Passed to vLLM's engine under vLLM's own names."""


class ClassifierModel(OwnModel, Classifier):
    """A classifier, how it is asked and read, and what runs it."""

    engine: Literal["vllm", "transformers"] = "vllm"
    """vllm: a language model. transformers: an encoder with a classification head, whose own label names are the labels."""
    truncate: bool = False
    """Of an encoder: texts beyond its window are cut at their end. Else they are not judged."""

    @model_validator(mode="after")
    def _one_way(self) -> "ClassifierModel":
        encoder = self.engine == "transformers"
        if encoder != (self.request in ("pair", "response")):
            raise ValueError(f'request = "{self.request}" is not for engine = "{self.engine}"')
        unread = {"reads_text": "pattern", "lead": "lead", "vllm": "vllm"} if encoder else {"truncate": "truncate"}
        if found := [key for name, key in unread.items() if getattr(self, name)]:
            raise ValueError(f'{found[0]} is not read where engine = "{self.engine}"')
        return self


class JudgeFile(Section):
    """A judge. Exactly one of `endpoint`, `local`, `classifier`, `fitted` and `python` is there."""

    description: str = ""
    rubric: str | None = None
    """A text file with your own definitions of the grades; None takes judging/rubrics/grades.md."""
    endpoint: Endpoint | None = None
    local: OwnModel | None = None
    classifier: ClassifierModel | None = None
    fitted: bool = False
    """The rules fitted to labels (judging/fitted.py)."""
    python: str | None = None
    """A Python file in configs/judges/, by its name. No other folder's: a configuration from elsewhere runs no code here."""

    @field_validator("python")
    @classmethod
    def _in_our_folder(cls, name: str | None) -> str | None:
        if name is not None and name not in {path.name for path in JUDGE_DIR.glob("*.py")}:
            raise ValueError("expected the name of a Python file in configs/judges/")
        return name

    @model_validator(mode="after")
    def _one_kind(self) -> "JudgeFile":
        kinds = (self.endpoint, self.local, self.classifier, self.python, self.fitted or None)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("expected one table [endpoint], [local] or [classifier], or the key python, and one of them alone")
        if self.rubric is not None and (self.classifier is not None or self.fitted):
            raise ValueError("rubric is not read by such a judge, which has definitions of its own")
        return self

    @property
    def own(self) -> OwnModel | None:
        """The model that is loaded here; None where the judge is asked elsewhere, or is a Python file."""
        return self.local or self.classifier

    @property
    def python_file(self) -> Path:
        """The Python file that gives the grades."""
        assert self.python is not None
        return JUDGE_DIR / self.python

    def read_rubric(self) -> Rubric:
        """The rubric. Raises EngineError for a file that cannot be read."""
        if self.rubric is None:
            return Rubric()
        try:
            return Rubric(user_path(self.rubric).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise EngineError(f"The rubric {self.rubric} cannot be read ({error}).") from error


def judge_names() -> list[str]:
    """Every judge there is by name."""
    return [OFFLINE, *sorted(path.stem for kind in SUFFIXES for path in JUDGE_DIR.glob(f"*{kind}"))]


def load_judge(name: str, overrides: Mapping[str, Any] | None = None) -> JudgeFile | None:
    """The file behind a judge's name or path; None for the rules. Raises EngineError for an unknown name or a wrong key.

    `overrides` maps dotted keys ("endpoint.model") to values and wins over the file.
    """
    if name == OFFLINE:
        return None
    path = user_path(name) if name.endswith(".toml") else _file_of(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, judge_names(), n=1, cutoff=0.4)
        hint = f"Did you mean '{near[0]}'?" if near else f"There are {', '.join(judge_names())}, or the path of a TOML file."
        raise EngineError(f"Unknown judge '{name}'. {hint}")
    if path.stem.startswith(OFFLINE):
        raise EngineError(f"A judge's file cannot be called {path.name}: '{OFFLINE}' is the name of the rules. Rename it.")
    if path.stem.endswith(TEXT):
        raise EngineError(
            f"A judge's file cannot be called {path.name}: '{TEXT}' marks rules that read the text alone. Rename it."
        )
    table = {"python": path.name} if path.suffix == ".py" else read_extended(path)
    for key, value in (overrides or {}).items():
        set_key(table, key.split("."), value)
    for key in BESIDE:
        if key not in (overrides or {}):
            _place_beside(table, key.split("."), path.parent)
    try:
        judge = JudgeFile.model_validate(table)
    except ValidationError as error:
        raise EngineError("\n".join(f"{path.name}: {line}" for line in explain(error, JudgeFile))) from error
    if judge.own is not None:
        kind = "local" if judge.local is not None else "classifier"
        check_plain(judge.own.vllm, path.name, f"{kind}.vllm", also=OF_A_JUDGE)
    return judge


def _place_beside(table: Any, keys: list[str], folder: Path) -> None:
    """Take the path under the keys as beside the file that names it."""
    *outer, last = keys
    for key in outer:
        table = table.get(key) if isinstance(table, dict) else None
    if isinstance(table, dict) and isinstance(table.get(last), str):
        table[last] = str(folder / user_path(table[last]))


def _file_of(name: str) -> Path:
    there = [path for kind in SUFFIXES if (path := JUDGE_DIR / f"{name}{kind}").is_file()]
    if len(there) > 1:
        raise EngineError(f"Two files are the judge '{name}': {there[0].name} and {there[1].name}. Rename one.")
    return there[0] if there else JUDGE_DIR / f"{name}.toml"


def label_of(name: str) -> str:
    """How rows name a judge: a path by its file's name."""
    return Path(name).stem if name.endswith(".toml") else name
