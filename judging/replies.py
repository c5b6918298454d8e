"""A strict reader of a language model's answers: one JSON object, known values, nothing guessed.

Around the object stands nothing but a closed block of reasoning before it, or one code fence. An answer that is refused says
what stood in the verdict's place.
"""

import json
import re
from typing import Any

from judging.errors import Fault
from judging.judgement import GRADES

FENCE = re.compile(r"\A```[ \t]*(?:json[a-z0-9]*)?\s*(.*?)\s*```\Z", re.DOTALL | re.IGNORECASE)
OPENS = re.compile(r"\A\s*(?:<(?:think|thinking|thought|reasoning)>|\[THINK\])", re.IGNORECASE)
CLOSES = re.compile(r"</(?:think|thinking|thought|reasoning)>|\[/THINK\]", re.IGNORECASE)
NUMBER = re.compile(r"\s*(0|1|0?\.50*|[01]\.0+)\s*")
FLAGS = {"true": True, "false": False}
KEPT_CHARACTERS = 4000


def read_object(reply: str) -> dict[str, Any]:
    """The JSON object in a reply, alone, in one code fence, or after closed reasoning. Raises Fault for anything else.

    Python's reader takes NaN, Infinity and repeated keys; this one does not.
    """
    text = without_reasoning(reply)
    if fenced := FENCE.match(text):
        text = fenced.group(1)
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Fault("unusable", f"{_what_stands(reply, text)} ({error})", raw_reply=reply) from None
    if not isinstance(value, dict):
        raise Fault("unusable", f"a JSON {type(value).__name__}, not an object", raw_reply=reply)
    return value


def without_reasoning(reply: str) -> str:
    """The reply without a closed block of reasoning at its start, whose opening tag the chat template may have written."""
    text = reply.strip()
    if text.startswith(("{", "`")):
        return text  # a verdict; a tag further on is part of its reason
    closing = CLOSES.search(text)
    return text[closing.end() :].strip() if closing else text


def _what_stands(reply: str, text: str) -> str:
    """What a reply is that is not one JSON object."""
    if OPENS.match(reply) and not CLOSES.search(reply):
        return "reasoning before the verdict that never ends, not one JSON object"
    if "<|channel|>" in reply:
        return "reasoning before the verdict, in channels that the server did not take apart, not one JSON object"
    if not text:
        return "reasoning without a verdict, not one JSON object"
    if "{" in text and not text.startswith(("{", "`")):
        return "text before the verdict, not one JSON object"
    return "not one JSON object"


def grade_of(value: dict[str, Any], name: str, reply: str) -> float:
    """The grade under `name`, exactly 0, 0.5 or 1, as a float; the number may be a text. Raises Fault for anything else."""
    if name not in value:
        raise Fault("unusable", f"no {name} in the verdict", raw_reply=reply)
    grade = _number(value[name])
    if isinstance(grade, bool) or not isinstance(grade, int | float) or grade not in GRADES:
        raise Fault("unusable", f"{name} is {json.dumps(value[name])[:40]}; expected 0, 0.5 or 1", raw_reply=reply)
    return float(grade)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def flag_of(value: dict[str, Any], name: str, reply: str) -> bool:
    """The boolean under `name`; true and false may be a text. Raises Fault for anything else."""
    found = value.get(name)
    flag = FLAGS.get(found.strip().lower()) if isinstance(found, str) else found
    if not isinstance(flag, bool):
        raise Fault("unusable", f"{name} is not true or false", raw_reply=reply)
    return flag


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
