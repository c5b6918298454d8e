"""The judge of a run: checked before anything starts, asked while responses are generated, read when they are scored."""

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.configs.judges import JudgeFile, OwnModel, label_of, load_judge
from engine.configs.schema import JudgeConfig
from engine.display.progress import say
from engine.errors import EngineError
from engine.models.locate import checkpoint_hash, open_model
from engine.paths import cache_dir, file_hash, hash_of
from engine.runs.files import LIKELIHOODS, VIEWS
from engine.runs.schemas import RolloutRow
from engine.scoring.grader import FittedGrader, Grader, judge_cache
from engine.scoring.open import check_judge, open_asker, open_grader
from engine.scoring.scores import batches, is_unfinished, item_of
from judging.batches import Batch, BatchCounts
from judging.budget import Budget
from judging.cache import ReplyCache
from judging.calls import Call
from judging.endpoint import Endpoint
from judging.estimate import estimate
from judging.fitted import fitted_hash
from judging.judge import Message
from judging.judgement import Item
from judging.offline import rubric_hash
from judging.remote import call_of

OFFERED_ROWS = 64


def own_identity(own: OwnModel) -> dict[str, Any]:
    """The settings of a judge that is loaded here, with the hash of its weights: a path may hold others tomorrow."""
    return {**own.model_dump(mode="json"), "weights": checkpoint_hash(open_model(own.model))}


def _rubric_of(file: JudgeFile) -> str:
    """The hash of what a judge is asked: a rubric, or a classifier's own form."""
    if file.classifier is None:
        return file.read_rubric().hash
    from engine.scoring.classifier import form_hash

    return form_hash(file.classifier)


def _in_batches(name: str, file: JudgeFile | None) -> JudgeFile:
    """The judge's file with a batch's prices. Raises EngineError for a judge that has no endpoint."""
    if file is None or file.endpoint is None:
        raise EngineError(f"--batch is for a judge behind an endpoint; {name} is none.")
    return file.model_copy(update={"endpoint": file.endpoint.in_batches})


class RunJudge:
    """The judge that a configuration names, opened when it is first needed. `expected`: responses it will be given."""

    def __init__(
        self,
        config: JudgeConfig,
        expected: int,
        overrides: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        *,
        batch: bool = False,
    ) -> None:
        self.config = config
        self.batch = batch
        self.budget = budget or Budget(config.max_cost)
        self.file: JudgeFile | None = load_judge(config.name, overrides)
        self.name = label_of(config.name)
        self._expected = expected * config.repeat
        if batch:
            self.file = _in_batches(self.name, self.file)
        self._offered: list[Item] = []
        self._opened = False

    @property
    def endpoint(self) -> Endpoint | None:
        return self.file.endpoint if self.file is not None else None

    @property
    def reads(self) -> str | None:
        """The file of a run that holds what this judge wants to know of the base: likelihoods, views, or none."""
        if self.file is None:
            return LIKELIHOODS
        return VIEWS if self.file.fitted else None

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide its scores."""
        if self.file is None:
            return {"judge": "offline", "rubric": rubric_hash()}
        if self.file.fitted:
            return {"judge": self.name, "rubric": fitted_hash()}
        if self.file.python is not None:
            return {"judge": self.file.python, "rubric": file_hash(self.file.python_file), "repeat": self.config.repeat}
        own = self.file.own
        asked = own_identity(own) if own is not None else self.endpoint.sampling if self.endpoint is not None else None
        shown = {"trace": True} if self.config.reads_trace else {}
        return {"judge": asked, "rubric": _rubric_of(self.file), "repeat": self.config.repeat, **shown}

    @property
    def stopped(self) -> str | None:
        """Why the judge gave up before the end; None where it did not."""
        return self.grader.stopped if self._opened else None

    def check_at_hand(self) -> None:
        """Raise for what is missing on this machine: a key, a price for a cost limit, a local model. Nothing is sent."""
        check_judge(self.file, self.config.max_cost)

    def plan(self, rollouts: Path) -> dict[str, Any]:
        """What judging the responses of a run takes: calls, tokens, cost and duration; nothing is sent."""
        plan: dict[str, Any] = {"judge": self.name, "identity": self.identity}
        if self.endpoint is None:
            return plan
        missing, cached = self.questions(rollouts)
        return plan | {"cached": cached, **asdict(estimate(self.endpoint, missing))}

    def questions(self, rollouts: Path) -> tuple[list[list[Message]], int]:
        """The questions about a run's responses that no answer is kept of, each once, and the number of kept answers."""
        missing, answered = self.unanswered(rollouts)
        return [call.messages for call in missing], answered

    def ask_in_batches(self, rollouts: Path, *, wait: bool) -> BatchCounts:
        """Have the unanswered questions about a run answered in a batch; see judging.batches."""
        assert self.endpoint is not None and self.file is not None
        rubric, calls = self.file.read_rubric(), self.unanswered(rollouts)[0]
        state = cache_dir() / "batches" / f"{hash_of({'run': str(rollouts.resolve()), 'judge': self.identity})}.json"
        batch = Batch(self.endpoint, rubric, state, say)
        if not calls and not state.is_file():
            return BatchCounts()
        if not state.is_file():
            batch.check_cost(calls, self.config.max_cost)
        with contextlib.closing(ReplyCache(judge_cache(), say)) as cache:
            return batch.run(calls, cache, wait=wait)

    def unanswered(self, rollouts: Path) -> tuple[list[Call], int]:
        """The calls about a run's responses that no answer is kept of, each once, and the number of kept answers."""
        assert self.endpoint is not None and self.file is not None
        hooks, cache = self.file.read_rubric(), ReplyCache(judge_cache(), say)
        calls = [
            call_of(self.endpoint, hooks, item_of(row, repeat=repeat, trace=self.config.reads_trace))
            for rows in batches(rollouts)
            for row in rows
            if not is_unfinished(row)
            for repeat in range(self.config.repeat)
        ]
        with contextlib.closing(cache):
            answered = cache.answered([call.key for call in calls])
        missing = {call.key: call for call in calls if call.key not in answered}
        return list(missing.values()), len(answered)

    def check(self, *, beside: str | None = None) -> None:
        """Raise for what would fail later: a missing key or price, an endpoint that refuses.

        `beside` names the work whose engine runs while it judges, such as "A sweep": no judge in an engine of our own goes then.
        """
        if beside is not None and self.config.repeat > 1:
            raise EngineError(f"{beside} asks its judge once about each response: leave judge.repeat at 1.")
        if self.file is not None and self.file.own is not None and beside is not None:
            raise EngineError(
                f"{beside} needs its judge while its engine runs, and a judge in an engine of our own would need its memory. "
                "Serve the model with `vllm serve` and use --judge vllm, or use the offline judge and run bin/judge after."
            )
        self.check_at_hand()
        if self.endpoint is not None:
            self._probe(self.endpoint)

    def _probe(self, endpoint: Endpoint) -> None:
        """Judge a harmless example, from no cache: shows a wrong key, address or model before a model is loaded."""
        assert self.file is not None
        rubric = self.file.read_rubric()
        with tempfile.TemporaryDirectory(prefix="judge-probe-") as folder:
            asker = open_asker(endpoint, rubric, expected=1, budget=self.budget, cache=Path(folder) / "probe.sqlite")
            with contextlib.closing(asker):
                asker.ask([rubric.probe])
                asker.drain()
                error = asker.answers([rubric.probe])[0].error
        if error is not None:
            say(f"judge: a harmless example was not judged ({error}); going on")

    @cached_property
    def grader(self) -> Grader:
        self._opened = True
        return open_grader(self.config.name, self.file, expected=self._expected, budget=self.budget, kept=self.batch)

    @property
    def text_grader(self) -> Grader:
        """The judge where nothing of the base is read for it: fitted rules then grade the text alone, and say so."""
        return self.grader.by_text() if isinstance(self.grader, FittedGrader) else self.grader

    def offer(self, row: RolloutRow) -> None:
        """Judge a response along the way, where there is room; what is not taken here is asked when the run is scored."""
        if self.endpoint is None or is_unfinished(row):
            return
        for repeat in range(self.config.repeat):
            self._offered.append(item_of(row, repeat=repeat, trace=self.config.reads_trace))
        if len(self._offered) >= OFFERED_ROWS:
            self.grader.offer(self._offered)
            self._offered = []

    def close(self) -> None:
        if self._opened:
            self.grader.close()
