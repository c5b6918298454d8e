"""The durable part of a sweep: responses and likelihoods on disk, tasks for what is missing, and where the time went."""

import time
from collections.abc import Container, Iterator, Sequence
from typing import Any

from engine import store
from engine.environment import has_gpu
from engine.errors import EngineError
from engine.graders import Grader, reference_logprob
from engine.progress import Progress
from engine.rundir import RunDir
from engine.session import Request, Session
from engine.stages import response_columns, row_identity
from engine.sweep.grid import Candidate
from engine.sweep.scoring import Key, Scoring
from engine.sweep.times import Times
from engine.sweep.work import Engines, Result, Task, chunks
from judging.paired import Grades

TASK_PROMPTS = {True: 1024, False: 256}  # with and without a GPU: as many as an engine runs side by side
Row = dict[str, Any]


class Rollouts:
    """Responses of candidates to requests: what is on disk, what has to be made, and its grades."""

    def __init__(self, session: Session, run_dir: RunDir, engines: Engines, grader: Grader) -> None:
        self.session = session
        self.engines = engines
        self.table = store.ShardedTable(run_dir.file("rollouts.parquet"), store.ROLLOUT_SCHEMA)
        self.likelihoods = store.ShardedTable(run_dir.file("likelihoods.parquet"), store.LIKELIHOOD_SCHEMA)
        self.rows: dict[Key, Row] = {store.key_of(row): row for row in self.table.rows()}
        self.logprobs: dict[Key, float | None] = {store.key_of(row): row["mean_logprob"] for row in self.likelihoods.rows()}
        self.scoring = Scoring(grader)
        self.scoring.submit(list(self.rows.values()))
        self.times = Times(run_dir.file("times.json"))
        self.failures: dict[str, str] = {}

    def make(self, candidates: Sequence[Candidate], requests: Sequence[Request], max_tokens: int) -> None:
        """Generate what is missing of every candidate's responses; each task's rows are on disk before they are graded."""
        sampling = self.session.config.sampling.model_copy(update={"max_tokens": max_tokens})
        texts = {request.prompt_id: request for request in requests}
        variants = {candidate.variant.hash: candidate.variant for candidate in candidates}
        tasks = [
            Task(variants[subject], subject, tuple(ids), tuple(prompts), sampling)
            for subject, ids, prompts in self._parts(candidates, requests, self.rows)
        ]
        for result in self._run(tasks, f"rollouts ({requests[0].split})", requests[0].split):
            task = result.task
            constant = row_identity(self.session, task.variant, sampling)
            rows = [
                constant | response_columns(texts[prompt_id], prompt, generation)
                for prompt_id, prompt, generation in zip(task.prompt_ids, task.prompts, result.generations, strict=True)
            ]
            self.table.extend(rows)
            self.rows |= {store.key_of(row): row for row in rows}
            self.scoring.submit(rows)
        self.scoring.drain()

    def add_likelihoods(self, candidates: Sequence[Candidate], requests: Sequence[Request]) -> None:
        """Read every response under the base weights, and grade again with what that says of its fluency.

        Not where a language model judges: it reads fluency for itself.
        """
        if not self.scoring.reads_likelihoods:
            return
        tasks = []
        for subject, ids, prompts in self._parts(candidates, requests, self.logprobs):
            if all((subject, prompt_id) in self.rows for prompt_id in ids):
                responses = tuple(tuple(self.rows[subject, prompt_id]["response_token_ids"]) for prompt_id in ids)
                sampling = self.session.config.sampling
                tasks.append(Task(self.session.base, subject, tuple(ids), tuple(prompts), sampling, responses))
        for result in self._run(tasks, f"likelihoods ({requests[0].split})", "likelihood"):
            keys = [(result.task.subject, prompt_id) for prompt_id in result.task.prompt_ids]
            self.logprobs |= dict(zip(keys, result.logprobs, strict=True))
            self.likelihoods.extend(
                {"variant_hash": subject, "prompt_id": prompt_id, "mean_logprob": self.logprobs[subject, prompt_id]}
                for subject, prompt_id in keys
            )
        base = [self.logprobs.get((self.session.base.hash, request.prompt_id)) for request in requests]
        rows = [self.rows[key] for key in self.keys(candidates, requests) if key in self.rows]
        self.scoring.regrade(rows, reference_logprob(base), self.logprobs)

    def _parts(
        self, candidates: Sequence[Candidate], requests: Sequence[Request], there: Container[Key]
    ) -> Iterator[tuple[str, list[str], list[tuple[int, ...]]]]:
        """Each candidate's prompts in parts of a task's size, without the parts that are there whole."""
        rendered = self.session.render(requests, f"{requests[0].split} prompts")
        listed = [(request.prompt_id, tuple(ids)) for request, ids in zip(requests, rendered, strict=True)]
        for candidate in candidates:
            subject = candidate.variant.hash
            for part in chunks(listed, TASK_PROMPTS[has_gpu()]):
                if not all((subject, prompt_id) in there for prompt_id, _ in part):
                    yield subject, [prompt_id for prompt_id, _ in part], [ids for _, ids in part]

    def _run(self, tasks: Sequence[Task], label: str, clock: str) -> Iterator[Result]:
        """Results that came through; a task that failed is remembered by its subject."""
        if not tasks:
            return
        with Progress(label, sum(len(task.prompts) for task in tasks)) as progress:
            started = time.monotonic()
            for result in self.engines.run(tasks):
                if result.error is not None:
                    self.failures[result.task.subject] = result.error
                    continue
                yield result
                tokens = sum(len(generation.token_ids) for generation in result.generations)
                progress.advance(len(result.task.prompts), tokens)
                spent = {f"{clock}_seconds": time.monotonic() - started, f"{clock}_tokens": tokens}
                self.times.add(**spent, swap_seconds=result.swap_seconds)
                started = time.monotonic()

    def grades(self, candidate: Candidate, requests: Sequence[Request]) -> Grades:
        """Grades on requests, prompt by prompt; missing where a response or a grade is."""
        found = [self.scoring.grades.get(key) for key in self.keys([candidate], requests)]
        return Grades.of([(None, None) if grade is None else (grade.compliance, grade.coherence) for grade in found])

    def keys(self, candidates: Sequence[Candidate], requests: Sequence[Request]) -> list[Key]:
        """Keys of candidates' rows, in order."""
        return [(candidate.variant.hash, request.prompt_id) for candidate in candidates for request in requests]

    def working(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that no engine gave up on. Raises EngineError where the base is not among them: nothing could be compared."""
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
