"""One call to a judge: two hooks (build the question, parse the reply), and `complete`, which alone touches the network.

    client = open_client(endpoint, key)
    reply = await complete(client, endpoint, hooks, messages, 60)   # Reply(content, tokens, milliseconds) or a Fault
    hooks.parse(reply.content)

It does not retry, pace or store: that is the worker's, the fan-out's and the cache's.
"""

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from judging.endpoint import Endpoint
from judging.errors import Fault, FaultKind, JudgeError
from judging.replies import storable

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from pydantic import SecretStr

Message = dict[str, str]
FATAL_STATUS = {401: "the key was not accepted", 402: "the account has no credit"}
BARRED_STATUS = {403: "forbidden", 404: "no such model or address"}
PASSING_STATUS = (408, 409, 425)
TOO_MANY_REQUESTS = 429
CONNECT_S = 10.0


class Hooks(ABC):
    """A kind of question: the messages that ask it and the parser of its replies.

    hash: names the wording and the form of the answer; part of a cached call's address.
    """

    name: str
    schema: Mapping[str, Any]
    probe: Any  # an item that no endpoint has a reason to refuse

    @property
    @abstractmethod
    def hash(self) -> str: ...

    @property
    def choices(self) -> list[str]:
        """Every possible reply, for endpoints that choose one. Raises JudgeError where there are too many."""
        raise JudgeError("structured = 'choice' fits questions with a few possible answers; this one asks for a text.")

    @property
    @abstractmethod
    def instructions(self) -> str:
        """The system message, the same for all items."""

    @abstractmethod
    def question(self, item: Any) -> str:
        """The user message about one item."""

    @property
    def first_message(self) -> Message:
        return {"role": "system", "content": self.instructions}

    def messages(self, item: Any) -> list[Message]:
        """The chat messages of one call: instructions, then the question about an item."""
        return [self.first_message, {"role": "user", "content": self.question(item)}]

    @abstractmethod
    def parse(self, reply: str) -> Any:
        """The value that a reply gives. Raises Fault("unusable") for a reply that gives none."""


@dataclass(frozen=True)
class Reply:
    """An endpoint's reply. Token counts are None where the endpoint did not count."""

    content: str
    latency_ms: float
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int


def fenced(texts: Mapping[str, str]) -> str:
    """The texts between marker lines, as one text.

    The markers carry a code made of the texts' hash, which no text can contain beforehand.
    """
    code = hashlib.sha256("\0".join(texts.values()).encode("utf-8", "replace")).hexdigest()[:12]
    parts = [f"=== {name} {code} begins ===\n{text}\n=== {name} {code} ends ===" for name, text in texts.items()]
    return "\n\n".join(parts)


def arguments(endpoint: Endpoint, hooks: Hooks, messages: list[Message]) -> dict[str, Any]:
    """Keyword arguments of one request, for the openai client."""
    body: dict[str, Any] = dict(endpoint.extra_body)
    request: dict[str, Any] = {"model": endpoint.model, "messages": messages, endpoint.max_tokens_field: endpoint.max_tokens}
    if endpoint.temperature is not None:
        request["temperature"] = endpoint.temperature
    if endpoint.structured == "json_schema":
        schema = {"name": hooks.name, "strict": True, "schema": hooks.schema}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif endpoint.structured == "json_object":
        request["response_format"] = {"type": "json_object"}
    elif endpoint.structured == "choice":
        body["structured_outputs"] = {"choice": hooks.choices}
    return request | ({"extra_body": body} if body else {})


def open_client(endpoint: Endpoint, key: "SecretStr | None", max_connections: int) -> "AsyncOpenAI":
    """An openai client over aiohttp, without retries of its own."""
    import httpx2
    from openai import AsyncOpenAI, DefaultAioHttpClient

    timeout = httpx2.Timeout(endpoint.timeout_s, connect=min(CONNECT_S, endpoint.timeout_s))
    limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    return AsyncOpenAI(
        api_key=key.get_secret_value() if key else "none",
        base_url=endpoint.base_url,
        max_retries=0,
        timeout=timeout,
        http_client=DefaultAioHttpClient(limits=limits, timeout=timeout),
    )


async def complete(client: "AsyncOpenAI", endpoint: Endpoint, hooks: Hooks, messages: list[Message], timeout_s: float) -> Reply:
    """The reply to one request, complete within `timeout_s` seconds of sending it.

    Raises Fault for everything that can go wrong on the way.
    """
    import asyncio

    import openai

    started = time.monotonic()
    request = arguments(endpoint, hooks, messages)
    try:
        async with asyncio.timeout(timeout_s):  # the client's own timeout starts anew with every byte
            raw = await client.chat.completions.with_raw_response.create(**request)
            body = raw.text if isinstance(raw.text, str) else raw.text()
    except openai.APIStatusError as error:
        raise _of_status(error) from None
    except (TimeoutError, openai.APIConnectionError) as error:
        raise _of_connection(error, timeout_s) from None
    return _read(body, 1000 * (time.monotonic() - started))


def _of_connection(error: Exception, timeout_s: float) -> Fault:
    """The Fault of a broken connection, read from the chain of causes: the client calls a refused connection a timeout."""
    import aiohttp

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    not_there = aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError
    if refused := next((cause for cause in causes if isinstance(cause, not_there)), None):
        return Fault("unreachable", f"the connection failed ({refused})")
    if lost := next((cause for cause in causes if isinstance(cause, aiohttp.ClientError)), None):
        return Fault("passing", f"the connection was lost ({type(lost).__name__}: {lost})")
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return Fault("passing", f"no complete answer within {timeout_s:.3g} s", strained=True)
    return Fault("passing", f"the connection failed ({type(causes[-1]).__name__}: {causes[-1]})")


def _of_status(error: "APIStatusError") -> Fault:
    status = error.status_code
    message = f"HTTP {status}: {_message(error.body, error.message)}"
    if status == TOO_MANY_REQUESTS and "insufficient_quota" not in json.dumps(error.body, default=str):
        return Fault("busy", message, retry_after=_seconds(error.response.headers.get("retry-after")))
    if status in FATAL_STATUS or status == TOO_MANY_REQUESTS:
        return Fault("fatal", f"{FATAL_STATUS.get(status, 'the quota is used up')}: {message}")
    if status >= 500 or status in PASSING_STATUS:
        return Fault("passing", message, retry_after=_seconds(error.response.headers.get("retry-after")), strained=status >= 500)
    if status in BARRED_STATUS:
        return Fault("barred", f"{BARRED_STATUS[status]}: {message}")
    return Fault("refused", message)


def _message(body: object, fallback: str) -> str:
    """The endpoint's own error text, wherever this endpoint puts it."""
    found = body
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return found if isinstance(found, str) else fallback


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
        return max((parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def _read(body: str, latency_ms: float) -> Reply:
    """The reply in a response's body. Raises Fault where there is none."""
    try:
        data = json.loads(body)
        choice, usage = data["choices"][0], data.get("usage") or {}
        message, finish = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or usage.get("prompt_cache_hit_tokens")
        counts = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        kind: FaultKind = "page" if body.lstrip().startswith("<") else "passing"
        raise Fault(kind, "the body is not a chat completion", raw_reply=storable(body)) from None
    reply = Reply(storable(content) if isinstance(content, str) else "", latency_ms, counts[0], counts[1], _count(cached) or 0)
    if fault := _no_answer(reply.content, refusal, finish):
        raise BilledFault(fault, reply)
    return reply


def _no_answer(content: str, refusal: object, finish: object) -> Fault | None:
    kept = content or None
    if finish == "content_filter":
        return Fault("refused", "the endpoint's content filter stopped the answer", raw_reply=kept)
    if refusal:
        return Fault("unusable", "the judge refused to judge", raw_reply=storable(str(refusal)))
    if finish == "length":
        return Fault("unusable", "the answer was cut at max_tokens", raw_reply=kept)
    return None if content.strip() else Fault("unusable", "the answer is empty", raw_reply=kept)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class BilledFault(Fault):
    """A fault of a reply that did come, so its tokens are paid for."""

    def __init__(self, fault: Fault, reply: Reply) -> None:
        super().__init__(fault.kind, str(fault), retry_after=fault.retry_after, raw_reply=fault.raw_reply)
        self.reply = reply
