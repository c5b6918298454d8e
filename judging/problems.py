"""What went wrong with an attempt, as a Fault: read from a status, an error's own words, or a broken connection.

Endpoints put their words in many places: `error.message`, a bare string, a list, FastAPI's `detail`, a web page. All are
found here, cut to a line or two, and cleaned of characters that a terminal would obey.
"""

import html
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from judging.errors import Fault
from judging.replies import shortened, storable

FATAL_STATUS = {401: "the key was not accepted", 402: "the account has no credit"}
BARRED_STATUS = {403: "forbidden", 404: "no such model or address", 405: "no such address"}
PASSING_STATUS = (408, 409, 425)
TOO_MANY_REQUESTS, UNAVAILABLE = 429, 503
ERROR_TYPES = {
    "authentication": 401,
    "invalid_api_key": 401,
    "insufficient": 402,
    "permission": 403,
    "not_found": 404,
    "rate_limit": 429,
    "overloaded": 503,
    "invalid_request": 400,
    "context_length": 400,
}
SAID_IN = ("error", "message", "msg", "detail", "details", "errors", "error_message", "error_msg", "description", "title")
DEPTH = 6  # of nested errors that are looked into
SHOWN_CHARACTERS = 400
QUOTA = re.compile(r"insufficient[_ ](quota|balance|credit|funds)", re.IGNORECASE)
LOADING = re.compile(r"\b(loading|warming up|starting up|cold start)", re.IGNORECASE)
TOO_LONG = re.compile(r"context (length|window|size)|maximum context|too (large|long)|exceed", re.IGNORECASE)
REFUSING = re.compile(
    r"(un|not |n't |doesn't |does not )(support|recogni[sz]|expect|permit|allow|avail)|unknown|unavailable|invalid|must be|"
    r"missing field|failed to|extra (inputs|fields)|deprecated|incompatible|cannot|can't|no longer|\bonly\b|\buse\b",
    re.IGNORECASE,
)
FIELD_WORDS = {
    "response_format": r"response_format|json_schema|json_object|structured outputs?|response format",
    "structured_outputs": r"structured_outputs|guided_choice",
    "temperature": r"temperature",
    "seed": r"seed",
    "max_completion_tokens": r"max_completion_tokens",
    "max_tokens": r"max_tokens",
}


def of_status(status: int, text: str, headers: Mapping[str, str]) -> Fault:
    """The fault that a status of 400 or more and its body tell of."""
    body = parsed(text)
    if _is_filtered(body):
        return Fault("refused", f"HTTP {status}: the endpoint's content filter stopped the answer")
    said = words_of(body) or said_by_page(text)
    return _of_code(status, f"HTTP {status}: {said}", body, _seconds(headers.get("retry-after")))


def of_error(error: Any, body: str) -> Fault:
    """The fault that an error inside a reply of status 200 tells of, treated as the status that it names.

    body: the reply, kept with the fault.
    """
    status = _status_in(error)
    said = words_of(error) or "an error without words"
    if status is None:
        found = Fault("passing", f"HTTP 200 with an error: {said}", strained=True)
    else:
        found = _of_code(status, f"HTTP 200 with error {status}: {said}", error, None)
    found.raw_reply = shortened(storable(body))
    return found


def _of_code(status: int, message: str, body: Any, retry_after: float | None) -> Fault:
    if status == TOO_MANY_REQUESTS and not QUOTA.search(f"{message} {_code_of(body)}"):
        return Fault("busy", message, retry_after=retry_after)
    if status in FATAL_STATUS or status == TOO_MANY_REQUESTS:
        return Fault("fatal", f"{FATAL_STATUS.get(status, 'the quota is used up')}: {message}")
    if status == UNAVAILABLE and LOADING.search(message):
        return Fault("loading", message, retry_after=retry_after)
    if status >= 500 or status in PASSING_STATUS:
        return Fault("passing", message, retry_after=retry_after, strained=status >= 500)
    if status in BARRED_STATUS:
        return Fault("barred", f"{BARRED_STATUS[status]}: {message}")
    return Fault("refused", message, fields=fields_refused(message, body))


def fields_refused(message: str, body: Any) -> tuple[str, ...]:
    """The optional fields that an error may refuse: the one it names as `param`, or those that its words speak of, in order."""
    named = _param_of(body)
    for field, words in FIELD_WORDS.items():
        if re.fullmatch(rf"(body\.)?({words})(\..*)?", named, re.IGNORECASE) and not TOO_LONG.search(message):
            return (field,)
    if TOO_LONG.search(message) or not REFUSING.search(message):
        return ()
    places = {field: found.start() for field, words in FIELD_WORDS.items() if (found := _word(words).search(message))}
    return tuple(sorted(places, key=lambda field: places[field]))


def _word(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w])({words})(?![\w])", re.IGNORECASE)


def _param_of(body: Any) -> str:
    """The name of a field that an error is about, where it names one apart from its words."""
    found = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, dict) and isinstance(found.get("detail"), list) and found["detail"]:
        found = found["detail"][0]
    if not isinstance(found, dict):
        return ""
    place = found.get("loc")
    return ".".join(map(str, place)) if isinstance(place, list) else str(found.get("param") or "")


def words_of(body: Any, depth: int = DEPTH) -> str | None:
    """An endpoint's own error text, wherever this endpoint puts it, on one line; None where there is none."""
    if isinstance(body, str):
        return clean(body) or None
    if depth == 0 or not isinstance(body, dict | list):
        return None
    if isinstance(body, list):
        return next((words for part in body if (words := words_of(part, depth - 1))), None)
    said = next((words for name in SAID_IN if (words := words_of(body.get(name), depth - 1))), None)
    place = body.get("loc")
    if said and isinstance(place, list):
        return f"{'.'.join(map(str, place))}: {said}"
    metadata = body.get("metadata")
    raw = words_of(metadata.get("raw"), depth - 1) if isinstance(metadata, dict) else None
    return f"{said} ({raw})" if said and raw else said


def said_by_page(text: str) -> str:
    """What a body that is no JSON says: a web page's title, or its first characters."""
    if is_page(text):
        title = re.search(r"<(title|h1)[^>]*>(.*?)</\1", text[:20_000], re.IGNORECASE | re.DOTALL)
        return f"a web page ('{clean(html.unescape(title.group(2)))}')" if title else "a web page"
    return clean(text) or "no word of why"


def is_page(text: str) -> bool:
    """True for HTML or XML."""
    return text.lstrip("\ufeff \t\r\n").startswith("<")


def is_stream(text: str) -> bool:
    """True for server-sent events."""
    return text.lstrip("\ufeff \t\r\n").startswith(("data:", "event:", ": "))


def clean(text: str) -> str:
    """The text on one line, without control characters, and cut where it is long."""
    line = " ".join("".join(character if character.isprintable() else " " for character in storable(text[:8000])).split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]} [cut]"


def parsed(text: str) -> Any:
    """The JSON in a body; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _status_in(error: Any) -> int | None:
    """The status that an error inside a body names: by number, or by its type's name."""
    if isinstance(error, list):
        error = error[0] if error else None
    if not isinstance(error, dict):
        return None
    for name in ("code", "status", "status_code", "http_status", "type"):
        value = error.get(name)
        if str(value).isdecimal() and 400 <= int(str(value)[:4]) <= 599:
            return int(str(value)[:4])
        if isinstance(value, str) and (known := next((ERROR_TYPES[one] for one in ERROR_TYPES if one in value.lower()), None)):
            return known
    return _status_in(error["error"]) if isinstance(error.get("error"), dict) else None


def _is_filtered(body: Any) -> bool:
    """True for a chat completion, under whatever status, that a content filter ended."""
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and first.get("finish_reason") == "content_filter"


def _code_of(body: Any) -> str:
    """The short names by which an error says what it is."""
    found = body.get("error", body) if isinstance(body, dict) else None
    return f"{found.get('code')} {found.get('type')}" if isinstance(found, dict) else ""


def _seconds(header: str | None) -> float | None:
    """Seconds to wait, from a Retry-After header: a number, or an HTTP date."""
    if header is None:
        return None
    try:
        seconds = float(header)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(header)
        return max(((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None
