"""A classifier as a judge: what it is shown, which labels it answers with, and what each label means.

It answers with one of its own labels, by their odds at the first token after the question or in a short text. Which model it is
and how it runs is the engine's matter.
"""

import json
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from judging.judgement import GRADES, Item, Judgement
from judging.outcomes import OUTCOMES, declined_of

Scale = Literal["harm", "compliance", "coherence", "declined", "outcome"]
Value = bool | float | str
Shares = dict[str, float]
FIELDS = ("prompt", "response")
PLACE = re.compile(r"\{(prompt|response)\}")
GRADED = ("compliance", "coherence")
DIGITS = 6


class Given(BaseModel):
    """What one scale is given by: each of the classifier's labels with its value on that scale."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: dict[str, Value]
    """harm: 0 to 1. compliance, coherence: 0, 0.5 or 1, or from 0 to 1 where they are averaged. declined: true or false.
    outcome: a name of judging.outcomes.OUTCOMES."""
    pattern: str | None = None
    """A regular expression whose first group is the label, searched in the classifier's text; None reads the labels' odds."""
    reduce: Literal["likeliest", "expected"] = "likeliest"
    """Of compliance and coherence: the likeliest label's grade, or the grade nearest to the labels' mean by their odds."""

    @field_validator("labels")
    @classmethod
    def _several(cls, labels: dict[str, Value]) -> dict[str, Value]:
        if len(labels) < 2:
            raise ValueError("expected at least two labels")
        if any(not label.strip() for label in labels):
            raise ValueError("expected labels with a text")
        return labels

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        try:
            groups = 1 if pattern is None else re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"expected a regular expression ({error})") from error
        if groups != 1:
            raise ValueError("expected a regular expression with one group, which is the label")
        return pattern

    def check(self, scale: str) -> None:
        """Raise ValueError for a value that the scale does not have."""
        for label, value in self.labels.items():
            if problem := _problem(scale, value, self.reduce):
                raise ValueError(f"gives.{scale}.labels.{label} = {value!r}: {problem}")
        if self.reduce == "expected" and scale not in GRADED:
            raise ValueError(f"gives.{scale}.reduce is not read: it is of compliance and coherence alone")


class Classifier(BaseModel):
    """How a classifier is asked and read. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: Literal["chat", "template", "pair", "response"] = "chat"
    """chat: the model's own chat template, the request as the user's turn and the response as the assistant's. template: a file.
    pair, response: an encoder's two texts, or the response alone."""
    template: str | None = None
    """The file of request = "template": its text with {prompt} and {response} in it."""
    template_source: str = ""
    """Where that file's text is published."""
    lead: str = ""
    """Text after the question, before the label: what the classifier always says first."""
    content: Literal["text", "parts"] = "text"
    """How a turn's text is given to the chat template: as it is, or as a list of parts."""
    add_generation_prompt: bool = False
    """Whether the chat template is asked to open the classifier's turn; most such templates do it by themselves."""
    max_tokens: int = Field(64, gt=0)
    """Of a text that patterns are searched in."""
    gives: dict[Scale, Given]

    @model_validator(mode="after")
    def _whole(self) -> "Classifier":
        if not self.gives:
            raise ValueError("gives is empty; expected at least one scale, such as [classifier.gives.harm]")
        for scale, given in self.gives.items():
            given.check(scale)
        if len({given.pattern is None for given in self.gives.values()}) > 1:
            raise ValueError("some scales have a pattern and some have none; expected all of one way")
        if "outcome" in self.gives and "declined" in self.gives:
            raise ValueError(
                "gives both outcome and declined; the outcome decides whether a response declines, so leave that out"
            )
        if unread := [name for name in ("template", "template_source") if self.request != "template" and getattr(self, name)]:
            raise ValueError(f'{unread[0]} is not read where request = "{self.request}"')
        return self

    @property
    def reads_text(self) -> bool:
        """Whether it is read by patterns in its text, and not by its labels' odds."""
        return next(iter(self.gives.values())).pattern is not None


def _problem(scale: str, value: Value, reduce: str) -> str | None:
    if scale == "declined":
        return None if isinstance(value, bool) else "expected true or false"
    if scale == "outcome":
        return None if value in OUTCOMES else f"expected one of {', '.join(OUTCOMES)}"
    if isinstance(value, bool | str) or not 0 <= value <= 1:
        return "expected a number from 0 to 1"
    exact = scale == "harm" or reduce == "expected" or value in GRADES
    return None if exact else 'expected 0, 0.5 or 1, or reduce = "expected"'


def filled(template: str, item: Item) -> str:
    """A template's text with the item's two texts in their places, each once and as it is."""
    texts = {"prompt": item.prompt, "response": item.response}
    return PLACE.sub(lambda place: texts[place.group(1)], template)


def read_text(gives: Mapping[Scale, Given], text: str) -> dict[str, Shares] | str:
    """Each scale's label in a classifier's text, at share 1; a sentence where one is not there."""
    found: dict[str, Shares] = {}
    for scale, given in gives.items():
        match = re.search(str(given.pattern), text)
        said = match.group(1).strip().casefold() if match and match.group(1) else ""
        labels = {label.casefold(): label for label in given.labels}
        if said not in labels:
            return f"no label of {scale} in the classifier's text: {json.dumps(text[:200], ensure_ascii=False)}"
        found[scale] = {labels[said]: 1.0}
    return found


def judgement_of(gives: Mapping[Scale, Given], shares: Mapping[str, Shares]) -> Judgement:
    """The judgement that the labels' shares make; a scale that the classifier does not give is None, and no error.

    shares: by scale, each label's share of the odds, together 1. They stay in `raw_reply` as JSON.
    """
    likeliest = {scale: given.labels[max(shares[scale], key=shares[scale].__getitem__)] for scale, given in gives.items()}
    graded = [scale for scale in gives if scale in GRADED]
    grades = {scale: _grade(gives[scale], shares[scale], likeliest[scale]) for scale in graded}
    outcome, said = likeliest.get("outcome"), likeliest.get("declined")
    kept = {scale: {label: round(share, DIGITS) for label, share in table.items()} for scale, table in shares.items()}
    return Judgement(
        grades.get("compliance"),
        grades.get("coherence"),
        declined_of(outcome if isinstance(outcome, str) else None, said if isinstance(said, bool) else None),
        "classifier",
        raw_reply=json.dumps(kept, ensure_ascii=False),
        outcome=outcome if isinstance(outcome, str) else None,
        harm=round(_mean(gives["harm"], shares["harm"]), DIGITS) if "harm" in gives else None,
    )


def _grade(given: Given, shares: Shares, likeliest: Value) -> float:
    value = _mean(given, shares) if given.reduce == "expected" else float(likeliest)
    return min(GRADES, key=lambda grade: abs(grade - value))


def _mean(given: Given, shares: Shares) -> float:
    return sum(float(given.labels[label]) * share for label, share in shares.items())
