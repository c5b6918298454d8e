"""bin/pair: an answerable twin for each prompt of a user's own list, checked, in the pairs format."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.configs.judges import load_judge
from engine.display.progress import say
from engine.errors import EngineError
from engine.paths import write_text
from engine.scoring.open import check_judge, open_asker
from extraction.conversations import USER, Conversation, Turn
from extraction.prompts import load_prompts
from judging.budget import Budget
from judging.endpoint import Endpoint
from judging.errors import JudgeError
from judging.judge import Hooks
from judging.remote import Answer
from judging.twins import AnswerableJudge, TwinWriter, Wanted, complaint_about

SPARE_TOKENS = 200  # for the form and the reason


@dataclass
class Twins:
    """Twins that were found, by the prompt's index, and why the others have none."""

    found: dict[int, str] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    unjudged: dict[int, str] = field(default_factory=dict)  # twins that wait for a judgement
    stopped: str | None = None


def make_pairs(
    prompts_file: str,
    judge: str,
    out: Path,
    *,
    tries: int,
    max_cost: float | None,
    overrides: dict[str, Any],
    column: str | None = None,
) -> dict[str, Any]:
    """Write the pairs to `out`, what has no twin to OUT.rejected.json, and return the counts.

    column: of the prompts in their file; None takes the one that is known.
    Raises EngineError before anything is sent for a judge that cannot write, and for an output that exists.
    """
    prompts = [prompt.text for prompt in load_prompts(prompts_file, column)]
    asked = [_asked(text, number) for number, text in enumerate(prompts, 1)]
    endpoint = endpoint_of(judge, max_cost, overrides, max(len(wanted.prompt.encode()) for wanted in asked))
    rejected_file = out.with_suffix(".rejected.json")
    if taken := [path for path in (out, rejected_file) if path.exists()]:
        raise EngineError(f"{taken[0]} exists. Choose another --out, or remove it: answers are cached.")
    if not out.parent.is_dir():
        raise EngineError(f"{out.parent} is not a directory. Make it, or choose another --out.")
    budget = Budget(max_cost)
    twins = find_twins(asked, endpoint, budget, tries)
    found = sorted(twins.found.items())
    pairs = [[_as_cell(text) for text in (prompts[index], _with_last(prompts[index], twin))] for index, twin in found]
    rejected = [
        {"index": index, "prompt": _as_cell(prompts[index]), "reason": twins.rejected[index]} for index in sorted(twins.rejected)
    ]
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
        "cost": budget.spent if endpoint.price else None,
        "stopped": twins.stopped,
    }


def _asked(text: str, number: int) -> Wanted:
    """What a twin is asked for: a prompt, or a conversation's last turn with what was said before it.

    Raises EngineError for a conversation whose answer is begun: a twin would have another.
    """
    if not isinstance(text, Conversation):
        return Wanted(text)
    if text.prefill:
        raise EngineError(
            f"Prompt {number} is a conversation whose answer is begun, and its twin's would be another. Leave it out."
        )
    last = text.turns[-1]
    return Wanted(last.content, before=text.removesuffix(f"\n\n[{last.role}]\n{last.content}"))


def _with_last(text: str, twin: str) -> str:
    """The prompt with its twin in the last turn's place."""
    return Conversation([*text.turns[:-1], Turn(USER, twin)]) if isinstance(text, Conversation) else twin


def _as_cell(text: str) -> Any:
    """A prompt as pair files hold it: a text, or a conversation's messages."""
    return text.messages if isinstance(text, Conversation) else text


def find_twins(asked: Sequence[Wanted], endpoint: Endpoint, budget: Budget, tries: int) -> Twins:
    """Ask for twins, check them, and ask again with what was wrong, up to `tries` times."""
    twins = Twins()
    wanted = dict(enumerate(asked))
    for _ in range(tries):
        if not wanted or twins.stopped:
            break
        without = {index: item for index, item in wanted.items() if index not in twins.unjudged}
        candidates = _written(without, endpoint, budget, twins)
        complaints = {index: complaint_about(asked[index].prompt, twin) for index, twin in candidates.items()}
        twins.unjudged |= {index: twin for index, twin in candidates.items() if complaints[index] is None}
        complaints |= _judged(asked, endpoint, budget, twins)
        twins.rejected |= {index: complaint for index, complaint in complaints.items() if complaint is not None}
        wanted = {
            index: replace(item, last=candidates.get(index, ""), complaint=complaints.get(index) or "", repeat=item.repeat + 1)
            for index, item in wanted.items()
            if index not in twins.found
        }
        say(f"pairs: {len(twins.found)} of {len(asked)} prompts have a twin")
    twins.rejected = {index: reason for index, reason in twins.rejected.items() if index not in twins.found}
    return twins


def _written(wanted: dict[int, Wanted], endpoint: Endpoint, budget: Budget, twins: Twins) -> dict[int, str]:
    """A twin for each prompt that one came for."""
    answers = _ask(wanted, endpoint, TwinWriter(), budget, twins)
    twins.rejected |= {index: f"no twin came: {answer.error}" for index, answer in answers.items() if answer.value is None}
    return {index: answer.value for index, answer in answers.items() if answer.value is not None}


def _judged(asked: Sequence[Wanted], endpoint: Endpoint, budget: Budget, twins: Twins) -> dict[int, str | None]:
    """Move twins that would be answered to `found`; a complaint about the others. Who was not judged waits for the next round."""
    wanted = {index: Wanted(twin, before=asked[index].before) for index, twin in twins.unjudged.items()}
    answers = _ask(wanted, endpoint, AnswerableJudge(), budget, twins)
    complaints: dict[int, str | None] = {}
    for index, answer in answers.items():
        if answer.value is None:
            twins.rejected[index] = f"its twin was not judged: {answer.error}"
            continue
        twin = twins.unjudged.pop(index)
        complaints[index] = None if answer.value else "an ordinary assistant would decline it too"
        if answer.value:
            twins.found[index] = twin
    return complaints


def endpoint_of(judge: str, max_cost: float | None, overrides: dict[str, Any], longest: int) -> Endpoint:
    """The endpoint of a judge's file, with room for a prompt of `longest` bytes. Raises EngineError for one that
    writes no text.
    """
    file = load_judge(judge, overrides)
    if file is None or file.endpoint is None:
        raise EngineError(f"The judge '{judge}' writes no text. Name one with an endpoint, such as deepseek, openai or vllm.")
    check_judge(file, max_cost)
    # A twin is a text as long as the prompt: vLLM's choices hold none, and a verdict's length may cut it.
    update: dict[str, Any] = {"max_tokens": max(file.endpoint.max_tokens, longest + SPARE_TOKENS)}
    if file.endpoint.structured == "choice":
        update["structured"] = "json_schema"
    return file.endpoint.model_copy(update=update)


def _ask(items: dict[int, Wanted], endpoint: Endpoint, hooks: Hooks, budget: Budget, twins: Twins) -> dict[int, Answer]:
    """Answers by index; none where judging has stopped. Raises JudgeError for an endpoint that never took a call."""
    if not items or twins.stopped:
        return {}
    asker = open_asker(endpoint, hooks, expected=len(items), budget=budget)
    with closing(asker):
        asker.ask(list(items.values()))
        try:
            asker.drain()
        except JudgeError as error:
            if not twins.found:
                raise
            twins.stopped = str(error)
        twins.stopped = twins.stopped or asker.fanout.stopped
        return dict(zip(items, asker.answers(list(items.values())), strict=True))
