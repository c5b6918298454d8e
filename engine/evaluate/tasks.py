"""Units of a sweep's work and who does them: a task is one variant and some prompts, generated together from an empty cache.

The same task gives the same batches whoever does it and whatever was done before, so a sweep that was killed, or one on
several engines, ends with the rows of an undisturbed one. A task that fails twice is given up, with its reason.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from engine.configs.schema import SamplingConfig
from engine.display.progress import say
from engine.errors import EngineError
from engine.evaluate.columns import generations_of, response_batch
from engine.inference.replica import Generation, Replica
from engine.inference.views import ViewTokens, base_views
from engine.models.variant import Variant
from engine.runs.requests import sample_of
from engine.runs.session import Session
from engine.vllm_compat import engine_failures
from judging.view import BaseView

MAX_ATTEMPTS = 2


@dataclass(frozen=True)
class Task:
    """Generate `variant`'s responses to `prompts`; or, where `responses` are given, their log-probability under it.

    `subject` is the hash of the variant that the rows belong to: the responses' own, where they are given.
    `views` asks for the responses' views instead; then each row has a subject of its own, in `subjects`. `logprobs` has each
    response that is generated tell its own mean log-probability.
    """

    variant: Variant
    subject: str
    prompt_ids: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    sampling: SamplingConfig
    responses: tuple[tuple[int, ...], ...] | None = None
    views: ViewTokens | None = None
    subjects: tuple[str, ...] = ()
    logprobs: bool = False


@dataclass(frozen=True)
class Result:
    """A task's outcome: responses in the prompts' order (`columns.RESPONSE_SCHEMA`), mean log-probabilities, or views.

    `seconds` are with the swap.
    """

    task: Task
    responses: pa.RecordBatch
    logprobs: list[float | None]
    swap_seconds: float
    seconds: float
    error: str | None = None
    views: Sequence[BaseView | None] = ()

    @property
    def generations(self) -> list[Generation]:
        """The responses one by one."""
        return generations_of(self.responses)

    @property
    def tokens(self) -> int:
        """Generated tokens of all responses."""
        return sum(self.responses["num_output_tokens"].to_pylist())


class Host:
    """A replica that does tasks. Plain: it runs in this process or in a Ray actor."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica

    def do(self, task: Task) -> Result:
        """Swap, then generate or score. Errors are the engine's."""
        started = time.monotonic()
        self.replica.swap(task.variant)
        self.replica.forget_prompts()
        swapped = time.monotonic()
        generations: list[Generation] = []
        logprobs: list[float | None] = []
        views: list[BaseView | None] = []
        if task.responses is None:
            samples = [sample_of(prompt_id) for prompt_id in task.prompt_ids]
            options: dict[str, Any] = {"together": True, "logprobs": task.logprobs, "samples": samples}
            generations = list(self.replica.generate(task.prompts, task.sampling, **options))
        elif task.views is not None:
            views = base_views(self.replica, task.prompts, task.responses, task.views)
        else:
            logprobs = self.replica.mean_logprobs(task.prompts, task.responses)
        done = time.monotonic()
        return Result(task, response_batch(generations), logprobs, swapped - started, done - started, views=views)


class Engines(Protocol):
    """Does tasks, on one engine or many."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """Results as they come; a task that failed twice has its error in place of rows. Tasks are taken as they are needed."""

    def close(self) -> None:
        """Stop the engines."""


class LocalEngine:
    """One engine in this process, started with the first task."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """Every task's result, in order."""
        for task in tasks:
            yield self._do(task)

    def close(self) -> None:
        self.session.close()

    def _do(self, task: Task) -> Result:
        faults: tuple[type[Exception], ...] = (EngineError, RuntimeError, *engine_failures())
        reason = ""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            host = Host(self.session.replica())
            try:
                return host.do(task)
            except faults as error:
                reason = f"{type(error).__name__}: {error}"
                say(f"{task.variant.name}: attempt {attempt} of {MAX_ATTEMPTS} failed ({reason})")
                self.session.close()
        return failed(task, reason)


def failed(task: Task, reason: str) -> Result:
    """A task given up."""
    return Result(task, response_batch([]), [], 0.0, 0.0, reason)


def chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Consecutive parts of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))
