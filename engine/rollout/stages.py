"""The stages of a run, each reading files and writing files: directions, rollouts, likelihoods, scores, summary."""

import contextlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from engine.configs.schema import RunConfig, SamplingConfig
from engine.display.progress import Progress, say
from engine.environment import versions
from engine.paths import write_json
from engine.rollout.directions import ensure_directions
from engine.rollout.variants import load_variant
from engine.runs import parquet, timings
from engine.runs.files import DIRECTIONS, LIKELIHOODS, ROLLOUTS, SCORES, SUMMARY, VIEWS
from engine.runs.identity import computed
from engine.runs.json_reader import read_json
from engine.runs.of_config import model_name
from engine.runs.parquet_reader import count_rows
from engine.runs.requests import Request, sample_of
from engine.runs.run_dir import RunDir
from engine.runs.schemas import LIKELIHOOD_SCHEMA, ROLLOUT_KEY, ROLLOUT_SCHEMA, VIEW_NUMBERS, VIEW_SCHEMA, RolloutRow
from engine.runs.session import Session
from engine.scoring.run_judge import RunJudge
from engine.scoring.scores import count_scored, score_run
from engine.scoring.summary import calibrations_of, make_summary
from extraction.conversations import from_row, to_json
from extraction.templates import MERGED, template_label
from judging.view import view_hash

if TYPE_CHECKING:
    from engine.inference.replica import Generation, Replica
    from engine.models.variant import Variant


def run_all(session: Session, run_dir: RunDir, judge: RunJudge) -> dict[str, Any]:
    """Every stage that is not done yet; returns the summary."""
    try:
        if session.config.checkpoint is None:
            ensure_directions(session, run_dir)
        run_dir.run_stage(
            "rollouts",
            lambda: make_rollouts(session, run_dir, judge.offer, logprobs=judge.reads == LIKELIHOODS),
            reads=[DIRECTIONS],
            settings=computed(session.identity),
            writes=[ROLLOUTS],
        )
        read_base(session, run_dir, judge)
    finally:
        session.close()
    judge_run(run_dir, [judge])
    return summarise_run(session.config, run_dir)


def read_base(session: Session, run_dir: RunDir, judge: RunJudge) -> None:
    """The stage that reads, with the base's weights, what the judge wants to know; none for a language model."""
    if judge.reads == LIKELIHOODS:
        run_dir.run_stage("likelihoods", partial(make_likelihoods, session, run_dir), reads=[ROLLOUTS], writes=[LIKELIHOODS])
    elif judge.reads == VIEWS:
        asked = {"asked": view_hash()}
        run_dir.run_stage("views", partial(make_views, session, run_dir), reads=[ROLLOUTS], settings=asked, writes=[VIEWS])


def judge_run(run_dir: RunDir, judges: Sequence[RunJudge]) -> None:
    """Scores by each judge: those that are missing, and all of them where responses, judge or rubric have changed."""
    run_dir.set_aside([SCORES])
    for judge in judges:
        stage = f"scores by {judge.name}"
        if count_scored(run_dir.file(SCORES), judge.name) < judge.config.repeat * count_rows(run_dir.file(ROLLOUTS)):
            run_dir.manifest["stages"].pop(stage, None)  # what failed is tried again, and what somebody removed
        work = partial(make_scores, run_dir, judge)
        run_dir.run_stage(stage, work, reads=[ROLLOUTS, judge.reads or LIKELIHOODS], settings=judge.identity, writes=[SCORES])


def make_scores(run_dir: RunDir, judge: RunJudge) -> None:
    """One judge's grades of every response."""
    say(f"scores: judge '{judge.name}' ({judge.grader.notice})")
    score_run(run_dir.path, judge.grader, repeats=judge.config.repeat, trace=judge.config.reads_trace)
    run_dir.manifest.setdefault("judging", {})[judge.name] = judge.grader.report
    run_dir.save()


def summarise_run(config: RunConfig, run_dir: RunDir) -> dict[str, Any]:
    """summary.json of every judge's scores, made again where they have changed."""
    published = run_dir.manifest["identity"]["config"]["published"]
    run_dir.run_stage(
        "summary",
        lambda: write_json(run_dir.file(SUMMARY), make_summary(config, run_dir.path, run_dir.manifest)),
        reads=[SCORES],
        settings={"published": published, "calibrations": calibrations_of(run_dir.file(SCORES))},
        writes=[SUMMARY],
    )
    return read_summary(run_dir)


def read_summary(run_dir: RunDir) -> dict[str, Any]:
    """The summary of a finished run."""
    return read_json(run_dir.file(SUMMARY))


def make_rollouts(
    session: Session,
    run_dir: RunDir,
    on_row: Callable[[RolloutRow], None] = lambda row: None,
    *,
    logprobs: bool = False,
) -> None:
    """Base and variant answer every request; rows that a shard holds already are not generated again.

    `on_row` sees every row, an earlier run's too. `logprobs` keeps what the base says of its own responses, which come with
    them; those of a variant have to be read by the base afterwards.
    """
    table = parquet.ShardedTable(run_dir.file(ROLLOUTS), ROLLOUT_SCHEMA, made_by=run_dir.made_by)
    variants = [session.base, load_variant(session, run_dir.file(DIRECTIONS))]
    done = table.keys()
    for row in table.rows() if done else ():
        on_row(cast(RolloutRow, row))
    wanted = [(variant, [r for r in session.requests if (variant.hash, r.prompt_id) not in done]) for variant in variants]
    if done:
        say(f"rollouts: {len(done)} rows are there from an earlier run; {sum(len(rest) for _, rest in wanted)} to go")
    for variant, requests in wanted:
        if requests:
            generate_rows(session, variant, requests, table, on_row, logprobs=logprobs and variant.is_base)
    run_dir.file(SCORES).unlink(missing_ok=True)  # of other responses
    in_order = {"variant_hash": [variant.hash for variant in variants], "prompt_id": [r.prompt_id for r in session.requests]}
    table.merge(in_order)


def generate_rows(
    session: Session,
    variant: "Variant",
    requests: list[Request],
    table: parquet.ShardedTable,
    on_row: Callable[[RolloutRow], None] = lambda row: None,
    *,
    logprobs: bool = False,
) -> None:
    """Generate one variant's rows, each into the table as it finishes."""
    try:
        with contextlib.closing(answer(session, variant, requests, logprobs=logprobs)) as rows:
            for row in rows:
                table.append(row)
                on_row(row)
    finally:
        table.flush()  # rows that are finished are kept, whatever comes


def answer(
    session: Session, variant: "Variant", requests: Sequence[Request], *, logprobs: bool = False
) -> Generator[RolloutRow, None, None]:
    """One variant's responses as rows of rollouts.parquet, each as it finishes, not in order; condition after condition."""
    replica = session.replica()
    with Progress(f"rollouts {variant.name}", len(requests)) as progress:
        for label in dict.fromkeys(request.condition for request in requests):
            some = [request for request in requests if request.condition == label]
            for row in _answer_under(session, variant, some, label, replica, logprobs=logprobs):
                yield row
                progress.advance(1, row["num_output_tokens"])
        timings.keep(session, timings.ROLLOUTS, progress.tokens, progress.seconds)


def _answer_under(
    session: Session, variant: "Variant", requests: Sequence[Request], label: str, replica: "Replica", *, logprobs: bool
) -> Iterator[RolloutRow]:
    """One variant's responses to the requests of one condition."""
    prompts, sampling = (
        session.render(requests, "test requests"),
        session.under[label].sampling if label else session.config.sampling,
    )
    replica.swap(variant)
    constant = row_identity(session, variant, sampling)
    samples = [sample_of(request.prompt_id) for request in requests]
    for generation in replica.generate(prompts, sampling, logprobs=logprobs, samples=samples):
        place = generation.index
        row = constant | response_columns(requests[place], prompts[place], generation)
        if session.thinking is not None:
            row |= session.thinking.columns(prompts[place], generation.token_ids)
        yield cast(RolloutRow, row)


def response_columns(request: Request, prompt: Sequence[int], generation: "Generation") -> dict[str, Any]:
    """The columns of a rollout that its prompt and response give."""
    return {
        "prompt_id": request.prompt_id,
        "split": request.split,
        "kind": request.kind,
        "category": request.category,
        "language": request.language,
        "prompt": request.text,
        "messages": to_json(request.text),
        "condition": request.condition,
        "response": generation.text,
        "response_token_ids": generation.token_ids,
        "num_prompt_tokens": len(prompt),
        "num_output_tokens": len(generation.token_ids),
        "finish_reason": generation.finish_reason,
        "trace": None,
        "num_trace_tokens": None,
        "unfinished": None,
        "mean_logprob": generation.mean_logprob,
    }


def row_identity(session: Session, variant: "Variant", sampling: SamplingConfig) -> dict[str, Any]:
    """The columns of a rollout that all of a variant's rows share."""
    installed = versions()
    return {
        "variant": variant.name,
        "variant_hash": variant.hash,
        "sampling": json.dumps(sampling.model_dump(exclude={"seed"}), sort_keys=True),
        "seed": sampling.seed,
        "engine": f"vllm {installed['vllm']}, torch {installed['torch']}",
        "dtype": session.config.model.dtype,
        "model": model_name(session.config, session.base_hash),
        "template": template_label(session.config.model.chat_template) + (MERGED if session.merges_system else ""),
        "form": form_of(session, variant),
    }


def form_of(session: Session, variant: "Variant") -> str:
    """How an engine holds a variant: base, a checkpoint or an adapter of others, or the configured form of an edit."""
    if variant.replacement is not None:
        return variant.replacement.form
    return "base" if variant.is_base else session.config.edit.form


def make_likelihoods(session: Session, run_dir: RunDir) -> None:
    """likelihoods.parquet of every response."""
    found = read_likelihoods(session, parquet.read_rows(run_dir.file(ROLLOUTS)))
    parquet.write_table(run_dir.file(LIKELIHOODS), found, LIKELIHOOD_SCHEMA)


def read_likelihoods(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean log-probability of every response under the base weights: what the offline judge knows of fluency."""
    known = {
        parquet.key_of(row): row["mean_logprob"] for row in rows if row["form"] == "base" and row["mean_logprob"] is not None
    }
    unread = [row for row in rows if parquet.key_of(row) not in known]
    replica = session.replica()
    replica.swap(session.base)
    prompts = _rendered(session, unread)
    with Progress("likelihoods", len(unread)) as progress:
        responses = [row["response_token_ids"] for row in unread]
        values = replica.mean_logprobs(prompts, responses, lambda: progress.advance())
    timings.keep(session, timings.LIKELIHOODS, sum(map(len, prompts)) + sum(map(len, responses)), progress.seconds)
    known |= {parquet.key_of(row): value for row, value in zip(unread, values, strict=True)}
    return [dict(zip(ROLLOUT_KEY, key, strict=True), mean_logprob=known[key]) for key in map(parquet.key_of, rows)]


def _rendered(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The prompts of rollouts as token ids, each under its own condition."""
    return [session.render_texts([from_row(row)], "prompts of the rollouts", row["condition"] or "")[0] for row in rows]


def make_views(session: Session, run_dir: RunDir) -> None:
    """views.parquet of every response without a trace."""
    found = read_views(session, parquet.read_rows(run_dir.file(ROLLOUTS)))
    parquet.write_table(run_dir.file(VIEWS), found, VIEW_SCHEMA)


def read_views(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the base makes of every request and its response's beginning: what the fitted judge knows of both.

    A response behind a trace has none: its likelihood would be the trace's.
    """
    from engine.inference.views import base_views, view_tokens

    plain = [row for row in rows if row["trace"] is None]
    replica = session.replica()
    replica.swap(session.base)
    prompts, responses = _rendered(session, plain), [row["response_token_ids"] for row in plain]
    with Progress("views", len(plain)) as progress:
        asked = view_tokens(session.renderer.tokenizer, session.renderer.render)
        found = base_views(replica, prompts, responses, asked, progress.advance)
    keys = (dict(zip(ROLLOUT_KEY, parquet.key_of(row), strict=True)) for row in plain)
    return [
        key | {name: None if view is None else getattr(view, name) for name in VIEW_NUMBERS}
        for key, view in zip(keys, found, strict=True)
    ]
