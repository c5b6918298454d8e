"""Units of a sweep's work and who does them: a task is one variant and some prompts, generated together from an empty cache.

The same task gives the same batches whoever does it and whatever was done before, so a sweep that was killed, or one on
several engines, ends with the rows of an undisturbed one. A task that fails twice is given up, with its reason.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa

from engine.configs.schema import SamplingConfig
from engine.display.progress import say
from engine.environment import has_gpu
from engine.errors import EngineError
from engine.evaluate.columns import generations_of, response_batch
from engine.inference.replica import Generation, Replica
from engine.inference.runtime_replica import Mixed, RuntimeReplica
from engine.inference.views import ViewTokens, base_views
from engine.models.variant import Variant
from engine.runs.requests import sample_of
from engine.runs.session import Session
from engine.vllm_compat import engine_failures
from judging.view import BaseView

MAX_ATTEMPTS = 2
QUEUE_PROMPTS = {True: 4096, False: 256}  # with and without a GPU, of tasks in one queue: on disk when it is through


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

    def do_together(self, tasks: Sequence[Task]) -> list[Result]:
        """Neighbours of `queues` as one queue."""
        started = time.monotonic()
        made: list[list[Generation]] = [[] for _ in tasks]
        scored: list[list[float | None]] = [[] for _ in tasks]
        self.replica.forget_prompts()
        if tasks[0].responses is None:
            assert isinstance(self.replica, RuntimeReplica)
            parts = [_part_of(task) for task in tasks]
            made = self.replica.generate_mixed(parts, tasks[0].sampling, logprobs=tasks[0].logprobs)
        else:
            self.replica.swap(tasks[0].variant)
            scored = self._scored(tasks)
        seconds = (time.monotonic() - started) / len(tasks)
        outcome = zip(tasks, made, scored, strict=True)
        return [Result(task, response_batch(own), logprobs, 0.0, seconds) for task, own, logprobs in outcome]

    def _scored(self, tasks: Sequence[Task]) -> list[list[float | None]]:
        prompts = [prompt for task in tasks for prompt in task.prompts]
        responses = [response for task in tasks for response in task.responses or ()]
        logprobs = iter(self.replica.mean_logprobs(prompts, responses))
        return [list(islice(logprobs, len(task.prompts))) for task in tasks]


def _part_of(task: Task) -> Mixed:
    return Mixed(task.variant, task.prompts, [sample_of(prompt_id) for prompt_id in task.prompt_ids])


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
        """Every task's result, in order; neighbours that one batch can hold are one queue."""
        gpu, mixing = has_gpu(), self.session.config.edit.form == "runtime"
        for some in queues(tasks, QUEUE_PROMPTS[gpu], generations=mixing, likelihoods=gpu):
            yield from self._together(some) if len(some) > 1 else [self._do(some[0])]

    def _together(self, tasks: Sequence[Task]) -> list[Result]:
        try:
            return Host(self.session.replica()).do_together(tasks)
        except self._faults() as error:
            say(f"{len(tasks)} tasks together failed ({type(error).__name__}: {error}); each by itself")
            self.session.close()
        return [self._do(task) for task in tasks]

    def close(self) -> None:
        self.session.close()

    def _faults(self) -> tuple[type[Exception], ...]:
        return (EngineError, RuntimeError, *engine_failures())

    def _do(self, task: Task) -> Result:
        reason = ""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            host = Host(self.session.replica())
            try:
                return host.do(task)
            except self._faults() as error:
                reason = f"{type(error).__name__}: {error}"
                say(f"{task.variant.name}: attempt {attempt} of {MAX_ATTEMPTS} failed ({reason})")
                self.session.close()
        return failed(task, reason)


def queues(tasks: Iterable[Task], most: int, *, generations: bool, likelihoods: bool) -> Iterator[list[Task]]:
    """Neighbours that one batch can hold, until there are `most` prompts.

    generations: of several variants. likelihoods: of several variants' responses under one variant.
    """
    queue: list[Task] = []
    for task in tasks:
        together = likelihoods if task.responses is not None else generations
        count = sum(len(one.prompts) for one in queue) + len(task.prompts)
        if queue and not (together and count <= most and _alike(queue[-1], task)):
            yield queue
            queue = []
        queue.append(task)
    if queue:
        yield queue


def _alike(one: Task, other: Task) -> bool:
    if one.responses is None or other.responses is None:
        return one.responses is other.responses and (one.sampling, one.logprobs) == (other.sampling, other.logprobs)
    return one.variant.hash == other.variant.hash and one.views is other.views is None


def failed(task: Task, reason: str) -> Result:
    """A task given up."""
    return Result(task, response_batch([]), [], 0.0, 0.0, reason)


def chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Consecutive parts of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))
