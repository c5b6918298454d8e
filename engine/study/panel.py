"""Test requests answered by a transformers model under an intervention, and graded: the slow, plain path of a study."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from editing.families.base import BIAS
from engine.errors import EngineError
from engine.runs.requests import Request
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.grader import Grader, OfflineGrader, reference_logprob
from extraction.generate import greedy
from extraction.prompts import Prompt
from extraction.teacher import mean_logprobs
from judging.judgement import Item, Judgement
from judging.statistics import of_grades, rate

INPUTS, WRITES = "inputs", "writes"


@dataclass(frozen=True)
class RequestPanel:
    """Requests, rendered, and the median log-probability (nats a token) of the base's own responses to them."""

    session: Session
    model: Any
    texts: list[str]
    kinds: list[str]
    prompts: list[list[int]]
    max_tokens: int
    reference: float | None
    judge: Grader | None = None

    def measure(self, intervention: AbstractContextManager[None]) -> Row:
        """Greedy responses under an intervention, graded by the judge; the rules read what the untouched model says of their
        fluency."""
        with intervention:
            responses = greedy(self.model, self.prompts, self.max_tokens)
        items = [
            Item(prompt=text, response=response, mean_logprob=logprob)
            for text, response, logprob in zip(
                self.texts, decode(self.session, responses), mean_logprobs(self.model, self.prompts, responses), strict=True
            )
        ]
        return graded(items, self.kinds, self.judge, self.reference)


def make_panel(
    session: Session, model: Any, requests: Sequence[Prompt | Request], max_tokens: int, judge: Grader | None = None
) -> RequestPanel:
    """Lay requests out and have the untouched model answer them. judge: None for the rules."""
    texts = [request.text for request in requests]
    prompts = session.render_texts(texts, "test requests")
    responses = greedy(model, prompts, max_tokens)
    reference = reference_logprob(mean_logprobs(model, prompts, responses))
    return RequestPanel(session, model, texts, [request.category for request in requests], prompts, max_tokens, reference, judge)


def graded(items: Sequence[Item], kinds: Sequence[str], judge: Grader | None, reference: float | None) -> Row:
    """Rates of responses, by the judge; None for the rules, which measure fluency against `reference` (nats a token)."""
    grader = judge or OfflineGrader(reference)
    grader.ask(list(items))
    grader.drain()
    return figures(grader.grade(list(items)), kinds)


def nothing() -> AbstractContextManager[None]:
    """The intervention of the base."""
    return nullcontext()


def decode(session: Session, responses: Sequence[Sequence[int]]) -> list[str]:
    """Text of responses, special tokens left out."""
    return [session.renderer.tokenizer.decode(response, skip_special_tokens=True) for response in responses]


def figures(judgements: Sequence[Judgement], kinds: Sequence[str]) -> Row:
    """Declined share, compliance, coherence and their products, each with its 95 % interval over kinds.

    `missing` have no grade and are left out.
    """
    graded = [(one, kind) for one, kind in zip(judgements, kinds, strict=True) if None not in (one.compliance, one.coherence)]
    said = [(bool(one.declined), kind) for one, kind in zip(judgements, kinds, strict=True) if one.declined is not None]
    compliance = [float(one.compliance or 0.0) for one, _ in graded]
    coherence = [float(one.coherence or 0.0) for one, _ in graded]
    estimates = of_grades(compliance, coherence, [kind for _, kind in graded])
    return {
        "n": len(judgements),
        "missing": len(judgements) - len(graded),
        "declined": asdict(rate([flag for flag, _ in said], [kind for _, kind in said])),
        **{name: asdict(estimate) for name, estimate in estimates.items()},
    }


def write_modules(session: Session, model: Any) -> list[str]:
    """Modules whose outputs are what attention and MLP write: the projections, or the norms that follow them. Their output
    biases belong to the same modules.

    Raises EngineError for fused experts, whose writes no module gives.
    """
    found = []
    for tensor in session.plan.edited:
        if tensor.role == BIAS:
            continue
        name = (tensor.gain or tensor.name).removesuffix(".weight")
        candidates = [name, f"{model.base_model_prefix}.{name}"]
        there = [candidate for candidate in candidates if _has(model, candidate)]
        if not there or len(tensor.shape) != 2:
            raise EngineError(
                f"{tensor.name} is no module of its own in transformers, so its writes cannot be hooked. Use --site inputs, or "
                "write the variant with bin/edit."
            )
        found.append(there[0])
    return list(dict.fromkeys(found))


def projects_norms(session: Session) -> bool:
    """True where what is written is what a norm puts out: there hooks project it exactly, and folded weights up to a factor."""
    return any(tensor.gain is not None for tensor in session.plan.edited)


def _has(model: Any, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True
