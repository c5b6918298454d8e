"""budget.json: what becomes of requests against the tokens that a model may think before it answers (`bin/study budget`)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.configs.schema import SamplingConfig
from engine.display.progress import Progress
from engine.environment import describe
from engine.errors import EngineError
from engine.models.thinking import Thinking
from engine.rollout.variants import variant_of
from engine.runs.requests import DECLINED, Request
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.calibrations import judge_of
from engine.scoring.grader import TEXT_ONLY, OfflineGrader
from engine.study.opening import Study
from judging.judgement import UNFINISHED, Item, Judgement
from judging.statistics import average, rate


def make_budget(study: Study, *, tokens: Any = "0,32,128", num_requests: int = 32) -> Row:
    """Base and variant under each bound of the trace, on test requests of the declined kind; answers have sampling.max_tokens.

    tokens: bounds, such as "0,32,128". Raises EngineError for a model whose traces nothing marks.
    """
    session, bounds = study.session, bounds_of(tokens)
    if session.thinking is None:
        raise EngineError("A budget bounds a trace: say how this model marks one, such as --set model.reasoning=auto.")
    asked = study.requests(DECLINED, num_requests)
    answer_tokens = session.config.sampling.max_tokens
    widen(session, max(bounds), answer_tokens)
    variants = [session.base, variant_of(session, study.directions(), session.config)]
    rows = []
    for variant in variants:
        session.replica().swap(variant)
        for bound in bounds:
            label = f"budget {variant.name}, {bound} tokens"
            rows.append(
                {"variant": variant.name, "tokens": bound} | _row(session, session.thinking, asked, bound, answer_tokens, label)
            )
    note = "tokens: of the trace at most. declined: of finished responses, by the rules on the answer's text."
    return {"rows": rows, "note": note, "judge": judge_of(OfflineGrader(name=TEXT_ONLY)), **describe()}


def bounds_of(tokens: Any) -> list[int]:
    """Bounds in ascending order. Raises EngineError for what is no list of whole numbers from 0."""
    parts = [str(part).strip() for part in (tokens if isinstance(tokens, list) else str(tokens).split(","))]
    if not parts or not all(part.isdigit() for part in parts):
        raise EngineError(f"--option tokens takes whole numbers with commas, such as 0,32,128; found '{tokens}'.")
    return sorted({int(part) for part in parts})


def widen(session: Session, bound: int, answer_tokens: int) -> None:
    """Have the session's engine leave room for the longest trace, and let requests bound theirs."""
    total = bound + answer_tokens + len(session.thinking.markers.end_ids if session.thinking else ())
    sampling = session.config.sampling.model_copy(update={"thinking_tokens": bound, "max_tokens": total})
    session.config = session.config.model_copy(update={"sampling": sampling})


def _row(session: Session, thinking: Thinking, asked: Sequence[Request], bound: int, answer_tokens: int, label: str) -> Row:
    limit = bound + len(thinking.markers.end_ids) + answer_tokens
    sampling: SamplingConfig = session.config.sampling.model_copy(update={"thinking_tokens": bound, "max_tokens": limit})
    prompts = session.render(asked, "test requests")
    told: list[Row] = [{} for _ in prompts]
    with Progress(label, len(prompts)) as progress:
        for one in session.replica().generate(prompts, sampling):
            told[one.index] = thinking.columns(prompts[one.index], one.token_ids) | {"finish_reason": one.finish_reason}
            progress.advance(1, len(one.token_ids))
    return figures(told, asked)


def figures(told: Sequence[Row], asked: Sequence[Request]) -> Row:
    """The outcomes of responses: shares, with the unfinished among them, and the length of their traces."""
    grader, kinds = OfflineGrader(name=TEXT_ONLY), [request.category for request in asked]
    found: list[Judgement] = [
        UNFINISHED if row["unfinished"] else grader.grade([Item(request.text, row["response"], row["finish_reason"])])[0]
        for row, request in zip(told, asked, strict=True)
    ]
    finished = [(bool(one.declined), kind) for one, kind in zip(found, kinds, strict=True) if one.declined is not None]
    return {
        "n": len(told),
        "declined": asdict(rate([flag for flag, _ in finished], [kind for _, kind in finished])),
        "unfinished": asdict(rate([bool(row["unfinished"]) for row in told], kinds)),
        "trace_tokens": asdict(average([float(row["num_trace_tokens"]) for row in told], kinds)),
        "outcomes": ", ".join(f"{name} {count}" for name, count in sorted(Counter(str(one.outcome) for one in found).items())),
    }
