"""bin/judge --check: one harmless item sent to an endpoint, and what its answer tells of a whole run."""

import contextlib
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.configs.judges import JudgeFile
from engine.display.table import View
from engine.errors import EngineError
from engine.scoring.open import check_judge, open_asker
from judging.budget import Budget
from judging.endpoint import ROUTE
from judging.estimate import Estimate, estimate
from judging.problems import clean
from judging.rubric import Rubric

RESPONSES = 1000  # of a run that is not there


def check_endpoint(name: str, file: JudgeFile | None, max_cost: float | None = None) -> dict[str, Any]:
    """What an endpoint does with one harmless item, from no cache. Raises JudgeError for one that takes no call."""
    if file is None or file.endpoint is None:
        raise EngineError(f"--check asks an endpoint, and the judge '{name}' is none. Give a judge with a table [endpoint].")
    check_judge(file, max_cost)
    rubric = file.read_rubric()
    with tempfile.TemporaryDirectory(prefix="judge-check-") as folder:
        options: dict[str, Any] = {"budget": Budget(max_cost), "cache": Path(folder) / "check.sqlite"}
        with contextlib.closing(open_asker(file.endpoint, rubric, expected=1, **options)) as asker:
            asker.ask([rubric.probe])
            asker.drain()
            [answer] = asker.answers([rubric.probe])
            notes = dict(asker.fanout.counts.notes)
    stored = answer.stored
    return {
        "judge": name,
        "address": file.endpoint.base_url + ROUTE,
        "model": file.endpoint.model,
        "reply_model": stored.model if stored else None,
        "verdict": answer.error is None,
        "error": answer.error,
        "raw_reply": stored.reply if stored else None,
        "structured": "none"
        if {"refuses response_format", "refuses structured_outputs"} & set(notes)
        else file.endpoint.structured,
        "attempts": stored.attempts if stored else 0,
        "latency_ms": stored.latency_ms if stored else None,
        "prompt_tokens": stored.prompt_tokens if stored else None,
        "completion_tokens": stored.completion_tokens if stored else None,
        "cost": stored.cost if stored else None,
        "notes": notes,
    }


def of_short_responses(file: JudgeFile, latency_ms: float | None) -> Estimate:
    """What a run of RESPONSES responses would take that are as short as the harmless item."""
    assert file.endpoint is not None
    rubric: Rubric = file.read_rubric()
    questions = [rubric.messages(rubric.probe)] * RESPONSES
    return estimate(file.endpoint, questions, seconds(latency_ms))


def seconds(measured_ms: float | None) -> float | None:
    """A measured latency in seconds; None where none was measured."""
    return None if measured_ms is None else measured_ms / 1000


def check_view(found: dict[str, Any], run: str, wanted: Estimate) -> View:
    """Lines on what an endpoint did, and on what a run would take."""
    counted = [found["prompt_tokens"], found["completion_tokens"]]
    tokens = "not counted" if None in counted else f"{counted[0]} of the question, {counted[1]} of the answer"
    answered = found["reply_model"] or "it does not say"
    lines: View = [
        f"{found['judge']}: {found['model']} at {found['address']}",
        f"verdict: {'read' if found['verdict'] else found['error']}",
        f"form of the answer: {found['structured']}; attempts: {found['attempts']}; model that answered: {answered}",
        f"tokens: {tokens}; cost: {'not known' if found['cost'] is None else found['cost']}",
        *(f"note: {note}" for note in found["notes"].values()),
        f"{run}: {wanted}",
    ]
    return lines if found["raw_reply"] is None or found["verdict"] else [*lines, f"it said: {clean(found['raw_reply'])}"]


def check_json(found: dict[str, Any], run: str, wanted: Estimate) -> dict[str, Any]:
    """The same as one table."""
    return {**found, "run": {"of": run, **asdict(wanted)}}
