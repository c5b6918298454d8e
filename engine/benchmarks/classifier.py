"""Measures a judge in our own engine: tokens/s from responses to kept judgements, over the engine's own rate on the same tokens.

Both sides ask the same questions in turns, for one token each. A round's requests are of its own, so nothing is cached.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.configs.judges import ClassifierModel
from engine.environment import describe
from engine.scoring.classifier import ClassifierGrader
from judging.judgement import Item

QUESTION = (
    "Read a request and its answer.\nRequest: {prompt}\nAnswer: {response}\nDoes the answer do what was asked? Say yes or no: "
)
RESPONSE = "It is usually mild in May, with light rain in the mornings and long evenings. " * 4
GIVES = {"declined": {"labels": {"yes": False, "no": True}}}


def bench_classifier(model: str, rows: int, rounds: int) -> dict[str, Any]:
    """The share of the engine's prefill rate that judging reaches: the median over rounds of one each, in alternating order."""
    with tempfile.TemporaryDirectory(prefix="bench-judge-") as folder:
        template = Path(folder) / "question.txt"
        template.write_text(QUESTION, encoding="utf-8")
        form = {"model": {"path": model}, "request": "template", "template": str(template), "gives": GIVES}
        grader = ClassifierGrader("bench", ClassifierModel.model_validate(form), cache=Path(folder) / "cache.sqlite")
        _judge(grader, _items(-1, rows))  # starts the engine
        shares, rates = [], []
        for number in range(rounds):
            sides = (_judge, _plain) if number % 2 else (_plain, _judge)
            seconds = {side: side(grader, _items(number, rows, side is _judge)) for side in sides}
            tokens = sum(len(ids) for ids in _tokens(grader, _items(number, rows)))
            shares.append(seconds[_plain] / seconds[_judge])
            rates.append(round(tokens / seconds[_judge]))
        grader.close()
    found = {"prefill_share": round(statistics.median(shares), 3), "prefill_shares": [round(share, 3) for share in shares]}
    return {**found, "judged_tokens_per_second": rates, "rows": rows, "model": model, **describe()}


def _items(number: int, rows: int, judged: bool = True) -> list[Item]:
    """A round's responses, as long on either side and never the same."""
    side = "ours" if judged else "none"
    return [Item(f"What is the weather in place {row:05d} of round {number:02d} {side} in May?", RESPONSE) for row in range(rows)]


def _tokens(grader: ClassifierGrader, items: Sequence[Item]) -> list[list[int]]:
    return [ids for item in items if isinstance(ids := grader.questions.token_ids(item), list)]


def _judge(grader: ClassifierGrader, items: Sequence[Item]) -> float:
    started = time.monotonic()
    grader.ask(items)
    grader.drain()
    grader.grade(items)
    return time.monotonic() - started


def _plain(grader: ClassifierGrader, items: Sequence[Item]) -> float:
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": ids} for ids in _tokens(grader, items)]
    started = time.monotonic()
    grader.engine({}).generate(prompts, SamplingParams(max_tokens=1, temperature=0), use_tqdm=False)
    return time.monotonic() - started
