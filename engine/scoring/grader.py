"""The protocol of a grader, and the offline one."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.configs.judges import OFFLINE
from engine.paths import cache_dir, shorten
from judging.judgement import Item, Judgement
from judging.offline import NOTICE, OfflineJudge, rubric_hash

TEXT_ONLY = "offline-text"  # the rules without the base's likelihoods: another judge


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

    def submit(self, items: Sequence[Item]) -> None:
        """Have items judged, in the background where that takes a while."""

    def offer(self, items: Sequence[Item]) -> None:
        """The same, without waiting: what finds no room is left out, and has to be submitted later."""

    def drain(self) -> None:
        """Wait until everything submitted is judged, or has failed."""

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        """Judgements in the order of the items, which were submitted; a missing one says why."""

    def close(self) -> None:
        """Stop."""


class OfflineGrader:
    """The rules. `reference_logprob`: median over the base's responses, nats a token; None grades the text alone."""

    def __init__(self, reference_logprob: float | None = None, *, name: str = OFFLINE) -> None:
        self.name, self.model, self.notice = name, "", NOTICE
        self.rubric_hash = shorten(rubric_hash())
        self.stopped: str | None = None
        self.report: dict[str, Any] = {}
        self._judge = OfflineJudge(reference_logprob)

    def submit(self, items: Sequence[Item]) -> None:
        pass

    def offer(self, items: Sequence[Item]) -> None:
        pass

    def drain(self) -> None:
        pass

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        return [self._judge.score(item.prompt, item.response, mean_logprob=item.mean_logprob) for item in items]

    def close(self) -> None:
        pass


def judge_cache() -> Path:
    """Where answers are kept for all runs."""
    return cache_dir() / "judgements.sqlite"


def reference_logprob(of_base: Iterable[float | None]) -> float | None:
    """The median log-probability of the base's own responses, which the rules measure others by; None where none is known."""
    known = [value for value in of_base if value is not None]
    return statistics.median(known) if known else None
