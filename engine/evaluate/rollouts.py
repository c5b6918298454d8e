"""The durable part of a sweep: responses and likelihoods on disk, tasks for what is missing, and where the time went."""

import time
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from engine.display.progress import Progress
from engine.environment import has_gpu
from engine.errors import EngineError
from engine.evaluate.candidates import Candidate
from engine.evaluate.columns import request_batch, rollout_table, thought_batch, view_table
from engine.evaluate.keyed import Key, Keyed
from engine.evaluate.rules import Rules
from engine.evaluate.scoring import Scoring
from engine.evaluate.tasks import Engines, Result, Task, chunks
from engine.evaluate.times import Times
from engine.inference.views import view_tokens
from engine.rollout.stages import row_identity
from engine.runs import parquet
from engine.runs.files import LIKELIHOODS, ROLLOUTS, TIMES, VIEWS
from engine.runs.requests import Request
from engine.runs.run_dir import RunDir
from engine.runs.schemas import LIKELIHOOD_SCHEMA, ROLLOUT_KEY, ROLLOUT_SCHEMA, VIEW_SCHEMA
from engine.runs.session import Session
from engine.scoring.grader import Grader, reference_logprob
from engine.scoring.scores import view_of
from judging.paired import Grades
from judging.view import BaseView

NAMES = LIKELIHOOD_SCHEMA.names
SHOWN = [
    *ROLLOUT_KEY,
    "prompt",
    "response",
    "finish_reason",
    "trace",
    "unfinished",
]  # what a judge is shown, and of which response
VARIANTS_AT_ONCE = 64  # whose responses are in memory
TASK_PROMPTS = {True: 1024, False: 256}  # with and without a GPU: as many as an engine runs side by side


@dataclass(frozen=True)
class Part:
    """Requests that are one task's, with their rendered prompts: every variant's tasks share them."""

    requests: tuple[Request, ...]
    ids: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(listed: Sequence[tuple[Request, tuple[int, ...]]]) -> "Part":
        requests, prompts = zip(*listed, strict=True)
        return Part(requests, tuple(request.prompt_id for request in requests), prompts)


def by_part(missing: Iterable[tuple[str, Part]], at_once: int) -> Iterator[tuple[list[str], Part]]:
    """Each part's subjects, at most so many together."""
    subjects: dict[tuple[str, ...], list[str]] = {}
    parts: dict[tuple[str, ...], Part] = {}
    for subject, part in missing:
        parts[part.ids] = part
        subjects.setdefault(part.ids, []).append(subject)
    for ids, part in parts.items():
        for some in chunks(subjects[ids], at_once):
            yield list(some), part


class Rollouts:
    """Responses of candidates to requests: what is on disk, what has to be made, and its grades.

    Responses stay on disk. `lengths` (output tokens) and `logprobs` have a number for each that is there.
    """

    def __init__(self, session: Session, run_dir: RunDir, engines: Engines, grader: Grader, rules: Rules | None = None) -> None:
        self.session = session
        self.engines = engines
        self.table = parquet.ShardedTable(run_dir.file(ROLLOUTS), ROLLOUT_SCHEMA, made_by=run_dir.made_by)
        self.likelihoods = parquet.ShardedTable(run_dir.file(LIKELIHOODS), LIKELIHOOD_SCHEMA, made_by=run_dir.made_by)
        self.views = parquet.ShardedTable(run_dir.file(VIEWS), VIEW_SCHEMA, made_by=run_dir.made_by)
        self.lengths: Keyed[int] = Keyed()
        self.logprobs: Keyed[float | None] = Keyed()
        self.viewed: Keyed[BaseView | None] = Keyed()
        self.scoring = Scoring(grader, rules, trace=session.config.judge.reads_trace)
        self.times = Times(run_dir.file(TIMES))
        self.failures: dict[str, str] = {}
        self.task_prompts = TASK_PROMPTS[has_gpu()]
        self._take_up()

    def _take_up(self) -> None:
        """Know what an earlier process left, and have it graded."""
        for batch in self.table.batches([*SHOWN, "num_output_tokens"]):
            self.lengths.put(*(batch[name].to_pylist() for name in (*ROLLOUT_KEY, "num_output_tokens")))
            self.scoring.feed(batch.select(SHOWN).to_pylist())
        for batch in self.likelihoods.batches():
            self.logprobs.put(*(batch[name].to_pylist() for name in (*ROLLOUT_KEY, "mean_logprob")))
        for batch in self.views.batches():
            for row in batch.to_pylist():
                self.viewed[row["variant_hash"], row["prompt_id"]] = view_of(row)

    @property
    def told(self) -> Container[Key]:
        """The responses of which the judge knows what it wants to know of the base."""
        return self.viewed if self.scoring.reads_views else self.logprobs

    @property
    def tables(self) -> list[parquet.ShardedTable]:
        """The tables on disk."""
        return [self.table, self.likelihoods, *([self.views] if self.scoring.reads_views else [])]

    def make(self, candidates: Sequence[Candidate], requests: Sequence[Request], max_tokens: int) -> None:
        """Generate what is missing of every candidate's responses; each task's rows are on disk before they are graded."""
        sampling = self.session.config.sampling.model_copy(update={"max_tokens": max_tokens})
        variants = {candidate.variant.hash: candidate.variant for candidate in candidates}
        missing = list(self._missing(candidates, requests, self.lengths))
        asked = {part.ids: request_batch(part.requests, part.prompts) for _, part in missing}
        tells = {subject: self.scoring.reads_likelihoods and variants[subject].is_base for subject, _ in missing}
        tasks = [
            Task(variants[subject], subject, part.ids, part.prompts, sampling, logprobs=tells[subject])
            for subject, part in missing
        ]
        total = sum(len(task.prompts) for task in tasks)
        for result in self._run(tasks, total, f"rollouts ({requests[0].split})", requests[0].split):
            task = result.task
            thought = thought_batch(self.session.thinking, task.prompts, result.responses)
            constant = row_identity(self.session, task.variant, sampling)
            table = rollout_table(constant, asked[task.prompt_ids], result.responses, thought)
            self.table.extend(table)
            subject = [task.subject] * len(table)
            self.lengths.put(subject, task.prompt_ids, table["num_output_tokens"].to_pylist())
            self.scoring.feed(table.select(SHOWN).to_pylist())
        self.scoring.drain()

    def read_base(self, candidates: Sequence[Candidate], requests: Sequence[Request]) -> None:
        """Read responses under the base weights, as far as the judge wants to know, and grade them again with that.

        Not where a language model judges: it reads fluency for itself. Nor views of a model that thinks first.
        """
        if self.scoring.reads_likelihoods:
            self._add_likelihoods(candidates, requests)
        elif self.scoring.reads_views and self.session.thinking is None:
            self._add_views(candidates, requests)

    def _add_likelihoods(self, candidates: Sequence[Candidate], requests: Sequence[Request]) -> None:
        missing = [
            (subject, part)
            for subject, part in self._missing(candidates, requests, self.logprobs)
            if all((subject, prompt_id) in self.lengths for prompt_id in part.ids)
        ]
        missing = [(subject, part) for subject, part in missing if not self._told_when_generated(subject, part)]
        total = sum(len(part.ids) for _, part in missing)
        for result in self._run(self._with_responses(missing), total, f"likelihoods ({requests[0].split})", "likelihood"):
            self._keep_logprobs(result.task.subject, result.task.prompt_ids, result.logprobs)
        self._regrade(candidates, requests)

    def _keep_logprobs(self, subject: str, prompt_ids: Sequence[str], values: Sequence[float | None]) -> None:
        subjects = [subject] * len(values)
        self.logprobs.put(subjects, prompt_ids, values)
        columns = (subjects, list(prompt_ids), list(values))
        self.likelihoods.extend(pa.Table.from_arrays(list(map(pa.array, columns)), names=NAMES).cast(LIKELIHOOD_SCHEMA))

    def _told_when_generated(self, subject: str, part: Part) -> bool:
        """Keep what the base said of its own responses when it wrote them; whether it said so of all in the part."""
        if subject != self.session.base.hash:
            return False
        found = self.table.where("variant_hash", [subject], ["mean_logprob", "num_output_tokens"])
        rows = {row["prompt_id"]: row for row in found.to_pylist()}
        own = [rows[prompt_id] for prompt_id in part.ids]
        if any(row["mean_logprob"] is None and row["num_output_tokens"] for row in own):
            return False
        self._keep_logprobs(subject, part.ids, [row["mean_logprob"] for row in own])
        return True

    def _add_views(self, candidates: Sequence[Candidate], requests: Sequence[Request]) -> None:
        missing = [
            (subject, part)
            for subject, part in self._missing(candidates, requests, self.viewed)
            if all((subject, prompt_id) in self.lengths for prompt_id in part.ids)
        ]
        total = sum(len(part.ids) for _, part in missing)
        for result in self._run(self._to_view(missing), total, f"views ({requests[0].split})", "likelihood"):
            keys = list(zip(result.task.subjects, result.task.prompt_ids, strict=True))
            for key, view in zip(keys, result.views, strict=True):
                self.viewed[key] = view
            self.views.extend(view_table(keys, result.views))
        self._regrade(candidates, requests)

    def _to_view(self, missing: Sequence[tuple[str, Part]]) -> Iterator[Task]:
        """Tasks of a few prompts with all variants' responses: an engine computes a prompt once for all of them."""
        asked = view_tokens(self.session.renderer.tokenizer, self.session.renderer.render)
        for subjects, part in by_part(missing, VARIANTS_AT_ONCE):
            found = self.table.where("variant_hash", subjects, ["response_token_ids"])
            keys = zip(*(found[name].to_pylist() for name in ROLLOUT_KEY), strict=True)
            places = {key: place for place, key in enumerate(keys)}
            for numbers in chunks(range(len(part.ids)), max(1, self.task_prompts // len(subjects))):
                rows = [(subject, number) for number in numbers for subject in subjects]
                ids = found["response_token_ids"].take([places[subject, part.ids[number]] for subject, number in rows])
                yield Task(
                    self.session.base,
                    self.session.base.hash,
                    tuple(part.ids[number] for _, number in rows),
                    tuple(part.prompts[number] for _, number in rows),
                    self.session.config.sampling,
                    tuple(map(tuple, ids.to_pylist())),
                    views=asked,
                    subjects=tuple(subject for subject, _ in rows),
                )

    def _regrade(self, candidates: Sequence[Candidate], requests: Sequence[Request]) -> None:
        reference = reference_logprob(self.logprobs.get((self.session.base.hash, request.prompt_id)) for request in requests)
        wanted = pa.array([request.prompt_id for request in requests], pa.string())
        for some in chunks(candidates, VARIANTS_AT_ONCE):
            found = self.table.where("variant_hash", [candidate.variant.hash for candidate in some], SHOWN)
            for batch in found.filter(pc.is_in(found["prompt_id"], wanted)).to_batches(parquet.ROWS_A_BATCH):
                if self.scoring.reads_views:
                    self.scoring.regrade_viewed(batch.to_pylist(), self.viewed)
                else:
                    self.scoring.regrade(batch.to_pylist(), reference, self.logprobs)
        self.scoring.drain()

    def _with_responses(self, missing: Sequence[tuple[str, Part]]) -> Iterator[Task]:
        """Tasks that read likelihoods, made as they are needed: a few variants' responses are in memory at once."""
        for some in chunks(missing, VARIANTS_AT_ONCE):
            found = self.table.where("variant_hash", [subject for subject, _ in some], ["response_token_ids"])
            places = {
                key: place for place, key in enumerate(zip(*(found[name].to_pylist() for name in ROLLOUT_KEY), strict=True))
            }
            for subject, part in some:
                ids = found["response_token_ids"].take([places[subject, prompt_id] for prompt_id in part.ids]).to_pylist()
                sampling = self.session.config.sampling
                yield Task(self.session.base, subject, part.ids, part.prompts, sampling, tuple(map(tuple, ids)))

    def _missing(
        self, candidates: Sequence[Candidate], requests: Sequence[Request], there: Container[Key]
    ) -> Iterator[tuple[str, Part]]:
        """Each candidate's prompts in parts of a task's size, without the parts that are there whole."""
        rendered = self.session.render(requests, f"{requests[0].split} prompts")
        listed = list(zip(requests, map(tuple, rendered), strict=True))
        parts = [Part.of(some) for some in chunks(listed, self.task_prompts)]
        for candidate in candidates:
            subject = candidate.variant.hash
            for part in parts:
                if not all((subject, prompt_id) in there for prompt_id in part.ids):
                    yield subject, part

    def _run(self, tasks: Iterable[Task], total: int, label: str, clock: str) -> Iterator[Result]:
        """Results that came through; a task that failed is remembered by its subject. `total`: rows to come."""
        if not total:
            return
        with Progress(label, total) as progress:
            started = time.monotonic()
            for result in self.engines.run(tasks):
                if result.error is not None:
                    self.failures[result.task.subject] = result.error
                    continue
                yield result
                tokens = result.tokens
                progress.advance(len(result.task.prompts), tokens)
                spent = {f"{clock}_seconds": time.monotonic() - started, f"{clock}_tokens": tokens}
                self.times.add(**spent, swap_seconds=result.swap_seconds)
                started = time.monotonic()

    def grades(self, candidate: Candidate, requests: Sequence[Request]) -> Grades:
        """Grades on requests, prompt by prompt; missing where a response or a grade is."""
        found = [self.scoring.grades.get(key) for key in self.keys([candidate], requests)]
        pairs = [(None, None) if grade is None else (grade.compliance, grade.coherence) for grade in found]
        return Grades.of(pairs, [request.category for request in requests])

    def keys(self, candidates: Sequence[Candidate], requests: Sequence[Request]) -> list[Key]:
        """Keys of candidates' rows, in order."""
        return [(candidate.variant.hash, request.prompt_id) for candidate in candidates for request in requests]

    def working(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates that no engine gave up on. Raises EngineError where the base is not among them."""
        if reason := self.failures.get(self.session.base.hash):
            raise EngineError(f"The base failed twice: {reason}")
        return [candidate for candidate in candidates if candidate.variant.hash not in self.failures]

    def reasons(self) -> str:
        """Why variants were given up, each reason once."""
        return "; ".join(dict.fromkeys(self.failures.values()))

    def close(self) -> None:
        self.scoring.close()
        self.times.add(judge_seconds=self.scoring.busy_seconds, waited_for_judge_seconds=self.scoring.waited_seconds)
        self.engines.close()
