"""Judges as the engine uses them: all take responses as they come and give judgements in order, whoever judges."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.cluster import check_address, check_key_may_travel, cluster_address, connect
from engine.configs.judges import ClassifierModel, JudgeFile, OwnModel, label_of
from engine.display.progress import say
from engine.paths import shorten
from engine.scoring.grader import FittedGrader, Grader, OfflineGrader, PythonGrader, judge_cache
from judging.budget import Budget
from judging.crew import Crew, LocalCrew
from judging.endpoint import Endpoint
from judging.fanout import Counts
from judging.judge import Hooks
from judging.remote import Asker, KeptJudge, RemoteJudge

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TICK_S = 10.0
FEW_CALLS = 100  # made in this process: starting Ray takes longer


def open_grader(name: str, file: JudgeFile | None, *, expected: int, budget: Budget | None = None, kept: bool = False) -> Grader:
    """The judge of a file, None for the rules; `expected` calls decide whether Ray is worth its start.

    kept: an endpoint's answers are taken from the cache, and nothing is asked.
    Raises JudgeError for a missing key, and for a cost limit without a price.
    """
    if file is None:
        return OfflineGrader()
    if file.fitted:
        return FittedGrader(label_of(name))
    if file.python is not None:
        return PythonGrader(file.python_file)
    if file.local is not None:
        from engine.scoring.local import LocalGrader

        return LocalGrader(label_of(name), file.local, file.read_rubric())
    if file.classifier is not None:
        return _classifier(label_of(name), file.classifier)
    assert file.endpoint is not None
    rubric = file.read_rubric()
    asker = open_asker(file.endpoint, rubric, expected=expected, budget=budget)
    judge = (KeptJudge if kept else RemoteJudge)(label_of(name), asker, rubric)
    judge.rubric_hash = shorten(judge.rubric_hash)
    return judge


def _classifier(name: str, own: ClassifierModel) -> Grader:
    if own.engine == "transformers":
        from engine.scoring.encoder import EncoderGrader

        return EncoderGrader(name, own)
    from engine.scoring.classifier import ClassifierGrader

    return ClassifierGrader(name, own)


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
    elsewhere = cluster_address() is not None and _is_here(endpoint)
    starters = [here, *([with_ray] if expected >= FEW_CALLS and not elsewhere else [])]
    options: dict[str, Any] = {"budget": budget, "say": say, "on_wait": Ticker(endpoint.model)}
    return Asker(endpoint, hooks, cache or judge_cache(), starters, **options)


def _is_here(endpoint: Endpoint) -> bool:
    return urlsplit(endpoint.base_url).hostname in LOOPBACK


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


def check_judge(file: JudgeFile | None, max_cost: float | None) -> None:
    """Raise for what is missing before anything is started: key, certificates, a price for a limit, a local model, a file."""
    if file is None:
        return
    if file.python is not None:
        PythonGrader(file.python_file)
        return
    file.read_rubric()
    if file.own is not None:
        _check_own(file.own)
    elif file.endpoint is not None:
        if (address := cluster_address()) is not None:
            check_address(address)
            if file.endpoint.key() is not None and not _is_here(file.endpoint):
                check_key_may_travel(file.endpoint.api_key_env or "the environment")
        file.endpoint.key()
        file.endpoint.ssl_context()
        file.endpoint.check_price(max_cost)


def _check_own(own: OwnModel) -> None:
    """Raise for a model that is not there, and for a classifier that cannot be asked as its file says."""
    from engine.models.locate import open_model

    open_model(own.model)
    if isinstance(own, ClassifierModel):
        _classifier("", own).close()
