"""A judge whose model is in this process: what it was given, what the cache holds of it, and its engine, started when needed.

A subclass says what it replies to a response and what a reply means. Replies of an item that is never asked, such as one that is
too long, are errors of that row alone.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.configs.judges import OwnModel
from engine.display.progress import Progress, say
from engine.environment import has_gpu, release_gpu_memory, set_environment, versions
from engine.inference.arguments import OPENED_AS, hardware_arguments
from engine.inference.arithmetic import arithmetic_of
from engine.inference.turns import start_in_turn
from engine.models.locate import checkpoint_hash, open_model
from engine.paths import shorten
from engine.scoring.grader import judge_cache, notice_of_model
from engine.vllm_compat import stop_engine
from judging.cache import ReplyCache
from judging.calls import Outcome
from judging.judgement import Item, Judgement

ITEMS_AT_ONCE = 512
AFTER_MASK = {"logprobs_mode": "processed_logprobs"}  # the odds among the tokens that are allowed


@dataclass(frozen=True)
class Unasked:
    """A response that is not put to the model, and why."""

    reason: str


class OwnModelGrader(ABC):
    """Grades with the model of `own`; it is loaded when something is to be judged that the cache does not hold.

    prefix: what `model` begins with, by which its rows tell what kind of judge it is.
    cache: the file of kept replies; None takes the one of all runs.
    """

    def __init__(self, name: str, own: OwnModel, rubric_hash: str, how: str, prefix: str = "", cache: Path | None = None) -> None:
        self.name = name
        self.checkpoint = open_model(own.model)
        self.arithmetic = arithmetic_of(own.model.dtype, self.checkpoint)
        # In the settings that address a reply, so that replies of two types are kept apart.
        model = own.model.model_copy(update={"dtype": self.arithmetic.dtype})
        self.own = own.model_copy(update={"model": model})
        self.model = f"{prefix}{own.model.path.rsplit('/', 1)[-1]}@{shorten(checkpoint_hash(self.checkpoint))}"
        self.notice = f"{notice_of_model(self.model)} {how}"
        self.stopped: str | None = None
        self.rubric_hash = rubric_hash
        self._cache = ReplyCache(cache or judge_cache(), say)
        self._missing: dict[bytes, Item] = {}
        self._unasked: dict[bytes, str] = {}
        self._judged = 0
        self._llm: Any = None

    @abstractmethod
    def replies(self, items: Sequence[Item]) -> list[str | Unasked]:
        """What the model says of each item, in a form that the cache keeps."""

    @abstractmethod
    def judgement(self, reply: str) -> Judgement:
        """The judgement that a kept reply means."""

    @property
    def report(self) -> dict[str, Any]:
        return {"judged": self._judged}

    def ask(self, items: Sequence[Item]) -> None:
        """Note what is not cached; `drain` judges it."""
        keys = [self._address(item) for item in items]
        answered = self._cache.answered(keys)
        self._missing |= {key: item for key, item in zip(keys, items, strict=True) if key not in answered}

    def offer(self, items: Sequence[Item]) -> None:
        """Nothing: two engines at once would share one machine."""
        return None

    def drain(self) -> None:
        """Judge what is missing."""
        if not self._missing:
            return
        missing, self._missing = list(self._missing.items()), {}
        with Progress(f"judge {self.name}", len(missing)) as progress:
            for start in range(0, len(missing), ITEMS_AT_ONCE):
                part = missing[start : start + ITEMS_AT_ONCE]
                self._keep([key for key, _ in part], self.replies([item for _, item in part]))
                progress.advance(len(part))

    def _keep(self, keys: Sequence[bytes], replies: Sequence[str | Unasked]) -> None:
        pairs = list(zip(keys, replies, strict=True))
        said = [Outcome(key, "done", reply, attempts=1) for key, reply in pairs if isinstance(reply, str)]
        self._unasked |= {key: reply.reason for key, reply in pairs if isinstance(reply, Unasked)}
        self._cache.put(said)
        self._judged += len(said)

    def grade(self, items: Sequence[Item]) -> list[Judgement]:
        """Judgements in order."""
        keys = [self._address(item) for item in items]
        stored = self._cache.get(keys)
        replies = [stored[key].reply if key in stored else None for key in keys]
        return [
            self.judgement(reply) if reply is not None else _not_judged(self._unasked.get(key, "not judged"))
            for key, reply in zip(keys, replies, strict=True)
        ]

    def close(self) -> None:
        """Stop the engine."""
        if self._llm is not None:
            stop_engine(self._llm)
            self._llm = None
        self._cache.close()

    def engine(self, more: Mapping[str, Any]) -> Any:
        """The vLLM engine, started on first use with `more` arguments; the file's own win."""
        if self._llm is None:
            gpu = has_gpu()
            set_environment()
            release_gpu_memory()
            self.arithmetic.say()
            say(f"judge: starting vLLM {versions()['vllm']} with {self.model} ({'GPU' if gpu else 'CPU'})")
            arguments = {"model": str(self.checkpoint.directory), "dtype": self.own.model.dtype, "disable_log_stats": True}
            arguments |= {"use_tqdm_on_load": False, **OPENED_AS, **hardware_arguments(has_gpu=gpu), **more}
            self._llm = start_in_turn(arguments | self.own.vllm, " for the judge")
        return self._llm

    def _address(self, item: Item) -> bytes:
        settings = self.own.model_dump_json(include={"model": True, "vllm": True}, exclude={"model": {"path", "revision"}})
        parts = [self.model, settings, self.rubric_hash, item.prompt, item.response, item.finish_reason or "", str(item.repeat)]
        return hashlib.sha256("\0".join(parts).encode()).digest()


def _not_judged(reason: str) -> Judgement:
    return Judgement(None, None, None, "", error=reason, attempts=0)
