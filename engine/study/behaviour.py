"""behaviour.json: what an edit does beyond the rate. KL along whole responses, length, repetition, over-refusal, and how
many tokens a response must have before its declined share is what it will be."""
# R = tokens of a response

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from engine.display.progress import Progress
from engine.environment import describe
from engine.errors import EngineError
from engine.models.folded import FoldedModel
from engine.rollout.directions import transformers_model
from engine.rollout.variants import load_variant
from engine.runs import parquet
from engine.runs.files import DIRECTIONS, ROLLOUTS
from engine.runs.run_dir import RunDir
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.calibrations import judge_of
from engine.scoring.grader import TEXT_ONLY, Grader, OfflineGrader
from engine.study.panel import decode
from extraction.conversations import from_row
from extraction.teacher import response_divergence
from judging.judgement import Item
from judging.statistics import average, rate
from judging.text import repeated_share

NGRAM = 4
LOOPING = 0.5  # share of repeated 4-grams
SETTLED = 0.02  # of the final declined share


def read_run(session: Session, run_dir: RunDir) -> list[Row]:
    """The run's rollouts. Raises EngineError where there are none."""
    if not run_dir.file(ROLLOUTS).is_file():
        raise EngineError(
            f"{run_dir.path} has no responses. Run bin/rollout --variant {session.config.variant} --out {run_dir.path} first."
        )
    run_dir.check([ROLLOUTS])
    return parquet.read_rows(run_dir.file(ROLLOUTS))


def make_behaviour(session: Session, run_dir: RunDir, rows: Sequence[Row], num_prompts: int, grader: Grader | None = None) -> Row:
    """Of the run's variant against its base; KL on the first `num_prompts` responses of each kind."""
    judge = grader or OfflineGrader(name=TEXT_ONLY)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["kind"]), []).append(row)
    return {
        "kl": divergences(session, run_dir, rows, num_prompts),
        "length": [{"variant": variant, "kind": kind} | length_figures(group) for (variant, kind), group in groups.items()],
        "by_tokens": [
            {"variant": variant, "kind": kind} | declined_by_tokens(session, group, judge)
            for (variant, kind), group in groups.items()
        ],
        "judge": judge_of(judge),
        **describe(),
    }


def divergences(session: Session, run_dir: RunDir, rows: Sequence[Row], num_prompts: int) -> list[Row]:
    """KL(base || variant) in nats along the base's own responses, by kind: a token's mean, a response's sum, and by place.

    Of a model that thinks first along the answer, given the trace.
    """
    variant = load_variant(session, run_dir.file(DIRECTIONS))
    folded = FoldedModel(transformers_model(session), session.checkpoint, session.plan)
    found = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        chosen = [row for row in rows if row["form"] == "base" and row["kind"] == kind and answer_of(row)]
        chosen = chosen[:num_prompts]
        prompts = [[*session.renderer.render(from_row(row)), *trace_of(row)] for row in chosen]
        responses = [answer_of(row) for row in chosen]
        with Progress(f"KL, {kind}", len(chosen)) as progress:
            values: list[Tensor] = []
            steps = response_divergence(
                folded.model, prompts, responses, lambda: folded.fold(variant.edit), lambda: folded.fold(None)
            )
            for _, kl_R in steps:
                values.append(kl_R)
                progress.advance()
        found.append({"kind": kind, "n": len(values)} | divergence_figures(values, [row["category"] for row in chosen]))
    return found


def trace_of(row: Row) -> list[int]:
    """The tokens of a response's trace, its markers among them; none where the model did not think first."""
    return list(row["response_token_ids"][: row.get("num_trace_tokens") or 0])


def answer_of(row: Row) -> list[int]:
    """The tokens of a response behind its trace."""
    return list(row["response_token_ids"][row.get("num_trace_tokens") or 0 :])


def divergence_figures(values: Sequence[Tensor], kinds: Sequence[str]) -> Row:
    """From each response's KL by token: means with intervals over responses, the first token's, and the mean by place."""
    longest = max((len(kl_R) for kl_R in values), default=0)
    places = [[float(kl_R[place]) for kl_R in values if len(kl_R) > place] for place in range(longest)]
    return {
        "per_token": asdict(average([float(kl_R.mean()) for kl_R in values], kinds)),
        "per_response": asdict(average([float(kl_R.sum()) for kl_R in values], kinds)),
        "first_token": asdict(average([float(kl_R[0]) for kl_R in values], kinds)),
        "by_place": [sum(here) / len(here) for here in places],
        "n_by_place": [len(here) for here in places],
    }


def length_figures(rows: Sequence[Row]) -> Row:
    """Tokens of a response, share cut at the limit, repeated 4-grams (seq-rep-4, Welleck et al. 2020), and share that loops."""
    kinds = [row["category"] for row in rows]
    repeated = [repeated_share([str(token) for token in row["response_token_ids"]], NGRAM) for row in rows]
    return {
        "n": len(rows),
        "tokens": asdict(average([float(row["num_output_tokens"]) for row in rows], kinds)),
        "cut": asdict(rate([row["finish_reason"] == "length" for row in rows], kinds)),
        "empty": sum(not row["response"].strip() for row in rows),
        "repetition": asdict(average(repeated, kinds)),
        "looping": asdict(rate([value >= LOOPING for value in repeated], kinds)),
    }


def declined_by_tokens(session: Session, rows: Sequence[Row], judge: Grader) -> Row:
    """Declined share, by the judge, of the responses cut after 4, 8, 16, ... tokens; and from where on it has settled."""
    longest = max(row["num_output_tokens"] for row in rows)
    counts = [*(size for size in (2**power for power in range(2, 20)) if size < longest), longest]
    points = []
    for count in counts:
        texts = decode(session, [row["response_token_ids"][:count] for row in rows])
        items = [Item(row["prompt"], text) for row, text in zip(rows, texts, strict=True)]
        judge.ask(items)
        judge.drain()
        said = [(one.declined, row["category"]) for one, row in zip(judge.grade(items), rows, strict=True)]
        known = [(flag, kind) for flag, kind in said if flag is not None]
        points.append({"tokens": count, "declined": asdict(rate([flag for flag, _ in known], [kind for _, kind in known]))})
    return {"points": points, "settled_at": settled_at(points)}


def settled_at(points: Sequence[Mapping[str, Any]]) -> int | None:
    """The first number of tokens from which on the share stays within 0.02 of the last; None where only the last does."""
    last = points[-1]["declined"]["value"]
    settled = None
    for point in reversed(points):
        if abs(point["declined"]["value"] - last) > SETTLED:
            break
        settled = point["tokens"]
    return settled if settled != points[-1]["tokens"] or len(points) == 1 else None
