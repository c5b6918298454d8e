"""The protocol of a grader, the offline one, and one that is a Python file."""

import importlib.util
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.configs.judges import OFFLINE, TEXT
from engine.errors import EngineError
from engine.paths import cache_dir, file_hash, shorten
from judging.fitted import NOTICE as FITTED_NOTICE
from judging.fitted import FittedJudge, fitted_hash
from judging.judgement import Item, Judgement
from judging.offline import NOTICE, OfflineJudge, rubric_hash

TEXT_ONLY = f"{OFFLINE}{TEXT}"
PYTHON = "python:"  # how `model` begins where a Python file makes the grades
CLASSIFIER = "classifier:"  # and where a classifier's labels do
FITTED = "fitted:"  # and where rules fitted to labels do


class Grader(Protocol):
    """A judge. `model` says which model it is, "" for the rules; `notice` is printed beside its rates."""

    name: str
    model: str
    notice: str
    rubric_hash: str

    @property
    def stopped(self) -> str | None:
        """Why it takes no more; None while it does."""

    @property
    def report(self) -> dict[str, Any]:
        """Counts of calls and tokens, and their cost."""

    def ask(self, items: Sequence[Item]) -> None:
        """Have items judged, in the background where that takes a while."""

    def offer(self, items: Sequence[Item]) -> None:
        """The same, without waiting: what finds no room is left out, and has to be asked later."""

    def drain(self) -> None:
        """Wait until everything asked is judged, or has failed."""

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        """Judgements in the order of the items, which were asked; a missing one says why."""

    def close(self) -> None:
        """Stop."""


class RuleGrader:
    """What a judge needs beside its grades where it asks nobody and runs in this process: a subclass has `grade`.

    `model` stays "" for the offline rules alone; any other judge says there what makes its grades.
    """

    def __init__(self, name: str, model: str, notice: str, rubric_hash: str) -> None:
        self.name, self.model, self.notice, self.rubric_hash = name, model, notice, rubric_hash
        self.stopped: str | None = None
        self.report: dict[str, Any] = {}

    def ask(self, items: Sequence[Item]) -> None:
        pass

    def offer(self, items: Sequence[Item]) -> None:
        pass

    def drain(self) -> None:
        pass

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        """Judgements in the order of the items."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class OfflineGrader(RuleGrader):
    """The rules. `reference_logprob`: median over the base's responses, nats a token; None grades the text alone."""

    def __init__(self, reference_logprob: float | None = None, *, name: str = OFFLINE) -> None:
        super().__init__(name, "", NOTICE, shorten(rubric_hash()))
        self._judge = OfflineJudge(reference_logprob)

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        return [
            self._judge.score(item.prompt, item.response, mean_logprob=item.mean_logprob, finish_reason=item.finish_reason)
            for item in items
        ]


class FittedGrader(RuleGrader):
    """The rules fitted to labels, with the base's view of each response; by the text alone under a name that ends in TEXT."""

    def __init__(self, name: str) -> None:
        code = shorten(fitted_hash())
        super().__init__(name, f"{FITTED}{code}", notice_of_model(FITTED), code)
        self._judge = FittedJudge()
        self._reads_base = not name.endswith(TEXT)

    def by_text(self) -> "FittedGrader":
        """The same for responses without a view."""
        return FittedGrader(self.name.removesuffix(TEXT) + TEXT)

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        views = [item.view if self._reads_base else None for item in items]
        return [
            self._judge.score(item.prompt, item.response, finish_reason=item.finish_reason, view=view)
            for item, view in zip(items, views, strict=True)
        ]


class PythonGrader(RuleGrader):
    """A judge that is a Python file with a function `grade(items) -> list[Judgement]`; the file's hash is its rubric's.

    Raises EngineError for a file that cannot be imported, or has no such function.
    """

    def __init__(self, file: Path) -> None:
        rubric_hash = file_hash(file)
        model = f"{PYTHON}{file.name}@{rubric_hash}"
        super().__init__(file.stem, model, notice_of_model(model), rubric_hash)
        self._grade = _function_of(file)

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        """Judgements in order. Raises EngineError where the file gives another number of them."""
        found = list(self._grade(items))
        if len(found) != len(items):
            raise EngineError(f"The judge {self.name} gave {len(found)} judgements for {len(items)} items; expected one each.")
        return found


def notice_of_model(model: str) -> str:
    """The notice that stands beside a judge's rates, by what makes its grades."""
    if model.startswith(PYTHON):
        return f"rules of {model.removeprefix(PYTHON)}, NOT a language model"
    if model.startswith(FITTED):
        return FITTED_NOTICE
    if model.startswith(CLASSIFIER):
        return f"classifier {model.removeprefix(CLASSIFIER)}"
    return f"language model {model}" if model else NOTICE


def _function_of(file: Path) -> Callable[[Sequence[Item]], Iterable[Judgement]]:
    spec = importlib.util.spec_from_file_location(f"judge_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise EngineError(f"The judge {file.name} cannot be imported ({type(error).__name__}: {error}).") from error
    if not callable(grade := getattr(module, "grade", None)):
        raise EngineError(f"The judge {file.name} has no function grade(items), which gives one Judgement for each item.")
    return grade


def judge_cache() -> Path:
    """Where answers are kept for all runs."""
    return cache_dir() / "judgements.sqlite"


def reference_logprob(of_base: Iterable[float | None]) -> float | None:
    """The median log-probability of the base's own responses, which the rules measure others by; None where none is known."""
    known = [value for value in of_base if value is not None]
    return statistics.median(known) if known else None
