"""`bin/compare` from folders to compare.json: rates, divergence and length of every member, in as few engines as can be."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.compare.divergence import KL_SCHEMA, rows_of, token_logprobs
from engine.compare.findings import find
from engine.compare.members import Member, given_units, look, open_members
from engine.configs.schema import RunConfig
from engine.display.progress import Progress, say
from engine.errors import EngineError
from engine.paths import write_json
from engine.report.refresh import refresh
from engine.rollout.stages import generate_rows, judge_run, read_base, response_columns, row_identity, summarise_run
from engine.runs import parquet
from engine.runs.files import ROLLOUTS, SCORES, headed
from engine.runs.identity import computed
from engine.runs.json_reader import read_json
from engine.runs.machine import check_machine
from engine.runs.run_dir import RunDir, check_space, open_run_dir
from engine.runs.schemas import ROLLOUT_SCHEMA, Row
from engine.runs.session import Session
from engine.scoring.run_judge import RunJudge

if TYPE_CHECKING:
    from engine.models.variant import Variant

SAMPLED, DIVERGENCE, COMPARE = "sampled.parquet", "divergence.parquet", "compare.json"
BYTES_PER_ROW = 8192


class Comparing:
    """One comparison: the base's session, the members, and where their rows go. `num_kl`: requests the base samples for KL."""

    def __init__(self, session: Session, members: Sequence[Member], run_dir: RunDir, num_kl: int) -> None:
        self.session, self.members, self.run_dir = session, members, run_dir
        self.asked = spread(session.requests, num_kl)
        self.rollouts = parquet.ShardedTable(run_dir.file(ROLLOUTS), ROLLOUT_SCHEMA, made_by=run_dir.made_by)
        self.divergence = parquet.ShardedTable(run_dir.file(DIVERGENCE), KL_SCHEMA, made_by=run_dir.made_by)

    def generate(self) -> None:
        """Every response and divergence that is not there yet: one swap a member, then the members that need their own engine."""
        base = self._base()
        for member in self.members:
            if not member.apart:
                self._member(self.session, member.variant, base)
        alone = [member for member in self.members if member.apart and self._lacks(member.variant)]
        if alone:
            self.session.close()  # two engines do not fit on one card together
        for member in alone:
            self._alone(member, base)
        hashes = [self.session.base.hash, *(member.variant.hash for member in self.members)]
        ids = [request.prompt_id for request in self.session.requests]
        self.run_dir.file(SCORES).unlink(missing_ok=True)  # of other responses
        self.rollouts.merge({"variant_hash": hashes, "prompt_id": ids})
        self.divergence.merge({"variant_hash": hashes, "prompt_id": ids})

    def _base(self) -> tuple[list[Row], list[list[float]]]:
        """The base's rows, what it samples for the divergence, and its own log-probabilities of that."""
        base = self.session.base
        missing = self._missing(base)
        if missing:
            generate_rows(self.session, base, missing, self.rollouts, logprobs=True)
        sampled = self._sampled()
        if not sampled or not any(self._lacks(member.variant) for member in self.members):
            return sampled, []
        replica = self.session.replica()
        replica.swap(base)
        prompts = self.session.render_texts([row["prompt"] for row in sampled], "requests")
        return sampled, token_logprobs(replica, prompts, [row["response_token_ids"] for row in sampled])

    def _sampled(self) -> list[Row]:
        """The base's responses at temperature 1, sampled once and kept."""
        if not self.asked:
            return []
        file = self.run_dir.file(SAMPLED)
        if self.run_dir.is_whole([SAMPLED]) and file.is_file():
            return [row for row in parquet.read_rows(file) if row["response_token_ids"]]
        sampling = self.session.config.sampling.model_copy(update={"temperature": 1.0, "top_p": 1.0})
        prompts = self.session.render(self.asked, "requests")
        replica = self.session.replica()
        replica.swap(self.session.base)
        constant = row_identity(self.session, self.session.base, sampling)
        with Progress("base samples", len(prompts)) as progress:
            rows = []
            for one in replica.generate(prompts, sampling):
                rows.append(constant | response_columns(self.asked[one.index], prompts[one.index], one))
                progress.advance(1, len(one.token_ids))
        rows.sort(key=lambda row: row["prompt_id"])
        with self.run_dir.writing(SAMPLED, by="bin/compare"):
            parquet.write_table(file, rows, ROLLOUT_SCHEMA)
        return [row for row in rows if row["response_token_ids"]]

    def _member(self, session: Session, variant: "Variant", base: tuple[list[Row], list[list[float]]]) -> None:
        """A member's rows and divergences that are not there yet, after one swap."""
        if not self._lacks(variant):
            return
        if missing := self._missing(variant):
            generate_rows(session, variant, missing, self.rollouts)
        self._diverge(session, variant, variant.hash, base)

    def _alone(self, member: Member, base: tuple[list[Row], list[list[float]]]) -> None:
        """The same for a member that the base's engine cannot hold, in one on its own folder, through the base's prompts."""
        assert member.variant.replacement is not None
        say(f"compare: {member.name} gets an engine of its own: {member.apart}")
        model = self.session.config.model
        asked = self.session.arithmetic.asked
        own = model.model_copy(update={"path": str(member.variant.replacement.directory), "revision": None, "dtype": asked})
        vllm = {**self.session.config.vllm, "tokenizer": str(self.session.checkpoint.directory)}  # the base's tokens are asked
        with contextlib.closing(Session(self.session.config.model_copy(update={"model": own, "vllm": vllm}))) as alone:
            replica, missing = alone.replica(), self._missing(member.variant)
            replica.swap(alone.base)
            prompts = self.session.render(missing, "requests")
            constant = row_identity(self.session, member.variant, alone.config.sampling)
            with Progress(f"rollouts {member.name}", len(prompts)) as progress:
                for one in replica.generate(prompts, alone.config.sampling):
                    self.rollouts.append(constant | response_columns(missing[one.index], prompts[one.index], one))
                    progress.advance(1, len(one.token_ids))
            self.rollouts.flush()
            self._diverge(alone, alone.base, member.variant.hash, base)

    def _diverge(self, session: Session, variant: "Variant", digest: str, base: tuple[list[Row], list[list[float]]]) -> None:
        sampled, own = base
        if not sampled or digest in self._diverged():
            return
        replica = session.replica()
        replica.swap(variant)
        prompts = self.session.render_texts([row["prompt"] for row in sampled], "requests")
        with Progress(f"divergence {digest[:6]}", len(sampled)) as progress:
            read = token_logprobs(replica, prompts, [row["response_token_ids"] for row in sampled], lambda: progress.advance())
        self.divergence.extend(rows_of(digest, sampled, own, read))

    def _missing(self, variant: "Variant") -> list[Any]:
        done = self.rollouts.keys()
        return [request for request in self.session.requests if (variant.hash, request.prompt_id) not in done]

    def _diverged(self) -> set[Any]:
        """The hashes of the members whose divergence is there: a member's rows are written together."""
        return {key[0] for key in self.divergence.keys()}  # noqa: SIM118 - a table of rows, not a dict

    def _lacks(self, variant: "Variant") -> bool:
        read = bool(self.asked) and variant.hash not in self._diverged()
        return bool(self._missing(variant)) or read


def compare(
    config: RunConfig,
    folders: Sequence[str],
    path: Path,
    *,
    directions: Path | None = None,
    num_kl: int = 64,
    tasks: Mapping[str, Any] | None = None,
    clean: bool = False,
    session: Session | None = None,
) -> Row:
    """Compare folders with the base; returns what compare.json holds. What is there from an earlier call is not made again.

    num_kl: requests on which the divergence is measured. tasks: lm-eval's, loaded. session: the configuration's, with an engine
    that runs already; it is closed.
    """
    if num_kl < 0:
        raise EngineError(f"--num-kl takes 0 or more requests; found {num_kl}.")
    session = session or Session(config)
    session.check_in_place("bin/compare")
    members = open_members(session, folders)
    units_LH = given_units(session, directions)
    check_machine(session)
    session.check_prompts()
    judge = RunJudge(config.judge, len(session.requests) * (1 + len(members)))
    judge.check()
    check_space(path, BYTES_PER_ROW * len(session.requests) * (1 + len(members)))
    hashes = {member.name: member.variant.hash for member in members}
    run_dir = open_run_dir(path, {**session.identity, "compared": hashes, "num_kl": num_kl}, clean=clean)
    say(f"run directory: {path}")
    with run_dir.locked(), contextlib.closing(judge), contextlib.closing(session):
        _responses(session, members, run_dir, num_kl, judge)
        if tasks:
            _bench(session, members, run_dir, tasks)
        judge_run(run_dir, [judge])
        summary = summarise_run(config, run_dir)
        settings = {"members": hashes, "directions": None if directions is None else str(directions)}

        def write() -> None:
            looked = {member.name: look(session, member) for member in members}
            found = find(members, looked, units_LH, summary, run_dir)
            write_json(run_dir.file(COMPARE), headed(config.variant, settings, found))

        reads = [ROLLOUTS, SCORES, DIVERGENCE]
        run_dir.run_stage("compare", write, reads=reads, settings=settings, writes=[COMPARE])
        refresh(run_dir)
        return read_json(run_dir.file(COMPARE))


def _responses(session: Session, members: Sequence[Member], run_dir: RunDir, num_kl: int, judge: RunJudge) -> None:
    work = Comparing(session, members, run_dir, num_kl).generate
    settings = computed(session.identity) | {"members": [member.variant.hash for member in members], "num_kl": num_kl}
    run_dir.run_stage("rollouts", work, settings=settings, writes=[ROLLOUTS, DIVERGENCE])
    read_base(session, run_dir, judge)


def _bench(session: Session, members: Sequence[Member], run_dir: RunDir, tasks: Mapping[str, Any]) -> None:
    from engine.lmeval.bench import BenchOptions, bench, write
    from engine.runs.files import BENCH, BENCH_ROWS

    together = [member.variant for member in members if not member.apart]
    options = BenchOptions(tasks["limit"], None, False)

    def work() -> None:
        result, rows = bench(session, [session.base, *together], tasks["tasks"], options)
        write(run_dir.path, headed(session.config.variant, vars(options), result), rows)

    settings = {"tasks": sorted(tasks["tasks"]), **vars(options), "members": [variant.hash for variant in together]}
    run_dir.run_stage("bench", work, settings=settings, writes=[BENCH, BENCH_ROWS])


def spread(requests: Sequence[Any], count: int) -> list[Any]:
    """`count` of the requests, evenly from the first to the last; all where there are fewer."""
    if count >= len(requests):
        return list(requests)
    return [requests[math.floor(place * len(requests) / count)] for place in range(count)]
