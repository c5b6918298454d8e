"""Judges as the engine uses them: all take responses as they come and give judgements in order, whoever judges."""

import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from engine.cluster import check_address, cluster_address, connect
from engine.judgefile import OFFLINE, JudgeFile, label_of
from engine.paths import cache_dir
from engine.progress import say
from judging.budget import Budget
from judging.crew import Crew, LocalCrew
from judging.endpoint import Endpoint
from judging.fanout import Counts
from judging.judge import Hooks
from judging.judgement import Item, Judgement
from judging.offline import NOTICE, OfflineJudge, rubric_hash
from judging.remote import Asker, RemoteJudge

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TICK_S = 10.0
FEW_CALLS = 100  # made in this process: starting Ray takes longer
HASH_DIGITS = 16
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
        """What was asked, and what it took."""

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
        self.rubric_hash = rubric_hash()[:HASH_DIGITS]
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


def open_grader(name: str, file: JudgeFile | None, *, expected: int, budget: Budget | None = None) -> Grader:
    """The judge of a file, None for the rules; `expected` calls decide whether Ray is worth its start.

    Raises JudgeError for a missing key, and for a cost limit without a price.
    """
    if file is None:
        return OfflineGrader()
    if file.local is not None:
        from engine.local_judge import LocalGrader

        return LocalGrader(label_of(name), file.local, file.read_rubric())
    assert file.endpoint is not None
    rubric = file.read_rubric()
    judge = RemoteJudge(label_of(name), open_asker(file.endpoint, rubric, expected=expected, budget=budget), rubric)
    judge.rubric_hash = judge.rubric_hash[:HASH_DIGITS]
    return judge


def open_asker(
    endpoint: Endpoint, hooks: Hooks, *, expected: int, budget: Budget | None = None, cache: Path | None = None
) -> Asker:
    """One kind of question at an endpoint, with the cache that all runs share."""
    key = endpoint.key()

    def here(proven: bool) -> Crew:
        return LocalCrew(endpoint, hooks, key, proven=proven)

    def with_ray(proven: bool) -> Crew:
        from judging.ray_crew import RayCrew

        connect()
        say(f"judge: {endpoint.model} at {endpoint.base_url}, {endpoint.workers} Ray actors")
        return RayCrew(endpoint, hooks, key)

    # An address on loopback is this machine's, wherever a cluster's actors may be.
    elsewhere = cluster_address() is not None and urlsplit(endpoint.base_url).hostname in LOOPBACK
    starters = [here, *([with_ray] if expected >= FEW_CALLS and not elsewhere else [])]
    options: dict[str, Any] = {"budget": budget, "say": say, "on_wait": Ticker(endpoint.model)}
    return Asker(endpoint, hooks, cache or judge_cache(), starters, **options)


class Ticker:
    """Says every ten seconds how far judging is."""

    def __init__(self, name: str) -> None:
        self._name, self._said = name, time.monotonic()

    def __call__(self, counts: Counts) -> None:
        if time.monotonic() - self._said >= TICK_S:
            self._said = time.monotonic()
            left = counts.asked - counts.cached - counts.shared - counts.done - counts.failed
            rate = counts.done / max(counts.seconds, 1e-9)
            say(f"judge {self._name}: {counts.done} answers, {counts.failed} failed, {left} to go, {rate:.1f} answers/s")


def judge_cache() -> Path:
    """Where answers are kept for all runs."""
    return cache_dir() / "judgements.sqlite"


def check_judge(file: JudgeFile | None, max_cost: float | None) -> None:
    """Raise for what is missing before anything is started: a key, a price for a cost limit, a local model."""
    if file is None:
        return
    file.read_rubric()
    if file.local is not None:
        from engine.models import open_model

        open_model(file.local.model)
    elif file.endpoint is not None:
        if (address := cluster_address()) is not None:
            check_address(address)
        file.endpoint.key()
        file.endpoint.check_price(max_cost)


def reference_logprob(of_base: Iterable[float | None]) -> float | None:
    """The median log-probability of the base's own responses, which the rules measure others by; None where none is known."""
    known = [value for value in of_base if value is not None]
    return statistics.median(known) if known else None
