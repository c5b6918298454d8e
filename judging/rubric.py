"""The rubric judge: a language model is asked for compliance and coherence, and its verdict is read.

The definitions of the grades are text files beside this one. Every score carries the rubric hash: of the definitions, the
wording and the form of the answer.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from judging import replies
from judging.errors import JudgeError
from judging.judge import Hooks, fenced
from judging.judgement import GRADES, Item, Judgement
from judging.outcomes import OUTCOMES, declined_of

RUBRIC_DIR = Path(__file__).parent / "rubrics"
DEFINITIONS = ("grades.md", "outcomes.md")
NUMBERS = [int(grade) if grade == int(grade) else grade for grade in GRADES]
SCHEMA = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "outcome": {"type": "string", "enum": list(OUTCOMES)},
        "compliance": {"type": "number", "enum": NUMBERS},
        "coherence": {"type": "number", "enum": NUMBERS},
    },
    "required": ["reason", "outcome", "compliance", "coherence"],
    "additionalProperties": False,
}
CUT = "The response stopped at the token limit; the cut itself is no fault."


class Rubric(Hooks):
    """Hooks that ask for both grades of one response.

    grades: the text of the definitions; the default is rubrics/grades.md and rubrics/outcomes.md.
    """

    name = "verdict"
    schema = SCHEMA
    probe = Item("Name a colour.", "Blue.", "stop")

    def __init__(self, grades: str | None = None) -> None:
        self.grades = "\n".join((RUBRIC_DIR / name).read_text("utf-8") for name in DEFINITIONS) if grades is None else grades
        if not self.grades.strip():
            raise JudgeError("The rubric is empty; expected the definitions of the grades 0, 0.5 and 1 on both scales.")

    @cached_property
    def instructions(self) -> str:
        return (RUBRIC_DIR / "judge.md").read_text("utf-8").format(grades=self.grades)

    @cached_property
    def hash(self) -> str:
        parts = [self.instructions, CUT, json.dumps(SCHEMA, sort_keys=True)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def choices(self) -> list[str]:
        grades = itertools.product(OUTCOMES, NUMBERS, NUMBERS)
        return [json.dumps({"outcome": outcome, "compliance": a, "coherence": b}) for outcome, a, b in grades]

    def question(self, item: Item) -> str:
        """Prompt, trace where it is to be seen, and response, each between markers it cannot contain."""
        trace = {} if item.trace is None else {"what was thought before the response": item.trace}
        content = fenced({"prompt": item.prompt, **trace, "response": item.response})
        if item.finish_reason == "length":
            content += f"\n\n{CUT}"
        return content

    def parse(self, reply: str) -> Judgement:
        """The judgement in a reply. Raises Fault for a reply without a valid verdict."""
        value: Mapping[str, Any] = replies.read_object(reply)
        table = dict(value)
        said = replies.flag_of(table, "declined", reply) if table.get("declined") is not None else None
        outcome = table["outcome"] if table.get("outcome") in OUTCOMES else None
        reason = table.get("reason")
        return Judgement(
            replies.grade_of(table, "compliance", reply),
            replies.grade_of(table, "coherence", reply),
            declined_of(outcome, said),
            replies.shortened(replies.storable(reason)) if isinstance(reason, str) else "",
            outcome=outcome,
        )
