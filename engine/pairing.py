"""bin/pair: an answerable twin for each prompt of a user's own list, checked, in the pairs format."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.graders import check_judge, open_asker
from engine.judgefile import load_judge
from engine.progress import say
from engine.rundir import write_text
from extraction.prompts import load_prompts
from judging.endpoint import Endpoint
from judging.judge import Hooks
from judging.remote import Answer
from judging.twins import AnswerableJudge, TwinWriter, Wanted, complaint_about


@dataclass
class Budget:
    """What may still be spent; None where there is no limit. `cost` is what was."""

    limit: float | None
    cost: float = 0.0
    stopped: str | None = None

    @property
    def left(self) -> float | None:
        return None if self.limit is None else max(self.limit - self.cost, 0.0)


@dataclass
class Twins:
    """What was found: twins by the prompt's index, and why the others have none."""

    found: dict[int, str] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)


def make_pairs(
    prompts_file: str, judge: str, out: Path, *, tries: int, max_cost: float | None, overrides: dict[str, Any]
) -> dict[str, Any]:
    """Write the pairs to `out`, what has no twin to OUT.rejected.json, and return the counts.

    Raises EngineError before anything is sent for a judge that cannot write, and for an output that exists.
    """
    prompts = [prompt.text for prompt in load_prompts(prompts_file)]
    endpoint = endpoint_of(judge, max_cost, overrides)
    rejected_file = out.with_suffix(".rejected.json")
    if taken := [path for path in (out, rejected_file) if path.exists()]:
        raise EngineError(f"{taken[0]} exists. Choose another --out, or remove it: answers are cached.")
    if not out.parent.is_dir():
        raise EngineError(f"{out.parent} is not a directory. Make it, or choose another --out.")
    budget = Budget(max_cost)
    twins = find_twins(prompts, endpoint, budget, tries)
    pairs = [[prompts[index], twins.found[index]] for index in sorted(twins.found)]
    rejected = [{"index": index, "prompt": prompts[index], "reason": twins.rejected[index]} for index in sorted(twins.rejected)]
    if pairs:
        write_text(out, json.dumps(pairs, indent=1, ensure_ascii=False) + "\n")
    if rejected:
        write_text(rejected_file, json.dumps(rejected, indent=1, ensure_ascii=False) + "\n")
    return {
        "prompts": len(prompts),
        "pairs": len(pairs),
        "rejected": len(rejected),
        "out": str(out) if pairs else None,
        "rejected_out": str(rejected_file) if rejected else None,
        "cost": budget.cost if endpoint.price else None,
        "stopped": budget.stopped,
    }


def find_twins(prompts: Sequence[str], endpoint: Endpoint, budget: Budget, tries: int) -> Twins:
    """Ask for twins, check them, and ask again with what was wrong, up to `tries` times."""
    twins = Twins()
    wanted = {index: Wanted(prompt) for index, prompt in enumerate(prompts)}
    for _ in range(tries):
        if not wanted or budget.stopped:
            break
        answers = _ask(list(wanted.values()), endpoint, TwinWriter(), budget)
        candidates = {index: answer.value for index, answer in zip(wanted, answers, strict=True) if answer.value is not None}
        twins.rejected |= {i: f"no twin came: {a.error}" for i, a in zip(wanted, answers, strict=True) if a.value is None}
        complaints = {index: complaint_about(prompts[index], twin) for index, twin in candidates.items()}
        complaints |= _declined(
            {index: twin for index, twin in candidates.items() if complaints[index] is None}, endpoint, budget
        )
        for index, complaint in complaints.items():
            if complaint is None:
                twins.found[index] = candidates[index]
                twins.rejected.pop(index, None)
            else:
                twins.rejected[index] = complaint
        wanted = {
            index: replace(item, complaint=complaints.get(index) or "", repeat=item.repeat + 1)
            for index, item in wanted.items()
            if index not in twins.found
        }
        say(f"pairs: {len(twins.found)} of {len(prompts)} prompts have a twin")
    return twins


def endpoint_of(judge: str, max_cost: float | None, overrides: dict[str, Any]) -> Endpoint:
    """The endpoint of a judge's file. Raises EngineError for a judge that writes no text."""
    file = load_judge(judge, overrides)
    if file is None or file.endpoint is None:
        raise EngineError(f"The judge '{judge}' writes no text. Name one with an endpoint, such as deepseek, openai or vllm.")
    check_judge(file, max_cost)
    # A twin is a text: among vLLM's choices there is none.
    choice = file.endpoint.structured == "choice"
    return file.endpoint.model_copy(update={"structured": "json_schema"}) if choice else file.endpoint


def _declined(candidates: dict[int, str], endpoint: Endpoint, budget: Budget) -> dict[int, str | None]:
    """A complaint about each candidate that would be declined itself, or was not judged."""
    if not candidates or budget.stopped:
        return dict.fromkeys(candidates, "not judged: stopped")
    answers = _ask([Wanted(twin) for twin in candidates.values()], endpoint, AnswerableJudge(), budget)
    judged = zip(candidates, answers, strict=True)
    return {index: _complaint(answer) for index, answer in judged}


def _complaint(answer: Answer) -> str | None:
    if answer.value is None:
        return f"not judged: {answer.error}"
    return None if answer.value else "an ordinary assistant would decline it too"


def _ask(items: Sequence[Wanted], endpoint: Endpoint, hooks: Hooks, budget: Budget) -> list[Answer]:
    asker = open_asker(endpoint, hooks, expected=len(items), max_cost=budget.left)
    with closing(asker):
        asker.submit(items)
        asker.drain()
        counts = asker.fanout.counts
        budget.cost += counts.cost + counts.unsure_cost
        budget.stopped = budget.stopped or asker.fanout.stopped
        return asker.answers(items)
