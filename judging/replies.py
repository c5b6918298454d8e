"""A strict reader of a language model's answers: one JSON object, known values, nothing guessed."""

import json
import re
from typing import Any

from judging.errors import Fault
from judging.judgement import GRADES

FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
KEPT_CHARACTERS = 4000


def read_object(reply: str) -> dict[str, Any]:
    """The JSON object in a reply, alone or in one code fence. Raises Fault for anything else.

    Python's reader takes NaN, Infinity and repeated keys; this one does not.
    """
    text = reply.strip()
    if fenced := FENCE.match(text):
        text = fenced.group(1)
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Fault("unusable", f"not one JSON object ({error})", raw_reply=reply) from None
    if not isinstance(value, dict):
        raise Fault("unusable", f"a JSON {type(value).__name__}, not an object", raw_reply=reply)
    return value


def grade_of(value: dict[str, Any], name: str, reply: str) -> float:
    """The grade under `name`, exactly 0, 0.5 or 1, as a float. Raises Fault for anything else."""
    if name not in value:
        raise Fault("unusable", f"no {name} in the verdict", raw_reply=reply)
    grade = value[name]
    if isinstance(grade, bool) or not isinstance(grade, int | float) or grade not in GRADES:
        raise Fault("unusable", f"{name} is {json.dumps(grade)[:40]}; expected 0, 0.5 or 1", raw_reply=reply)
    return float(grade)


def flag_of(value: dict[str, Any], name: str, reply: str) -> bool:
    """The boolean under `name`. Raises Fault for anything else."""
    if not isinstance(value.get(name), bool):
        raise Fault("unusable", f"{name} is not true or false", raw_reply=reply)
    return bool(value[name])


def text_of(value: dict[str, Any], name: str, reply: str) -> str:
    """The text under `name`, without surrounding white space. Raises Fault where it is empty or no text."""
    if not isinstance(value.get(name), str) or not value[name].strip():
        raise Fault("unusable", f"{name} is not a text", raw_reply=reply)
    return storable(str(value[name]).strip())


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: half of a surrogate pair, which JSON can escape, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def shortened(text: str) -> str:
    """The text as rows keep it: an over-long one is cut, and says so."""
    if len(text) <= KEPT_CHARACTERS:
        return text
    return f"{text[:KEPT_CHARACTERS]} [cut: {len(text)} characters]"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is given twice")
    return value
