"""Loopback servers that imitate one quirk of an endpoint that people have, and the replies that such endpoints give."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.judging.chaos import Chaos, verdict_on

Body = dict[str, Any]
Answer = web.StreamResponse | None
Quirk = Callable[[web.Request, Body], Answer | Awaitable[Answer]]
USAGE = {"prompt_tokens": 800, "completion_tokens": 30, "total_tokens": 830}


class Imitation(Chaos):
    """A server, under any path, whose answers are a quirk's; where the quirk gives None, a plain verdict.

    bodies, paths: of every request.
    """

    route = "/{path:.*}"

    def __init__(self, quirk: Quirk) -> None:
        super().__init__()
        self.quirk = quirk
        self.bodies: list[Body] = []
        self.paths: list[str] = []

    async def reply(self, request: web.Request, body: Body, question: str, fault: str | None) -> web.StreamResponse:
        self.bodies.append(body)
        self.paths.append(str(request.rel_url))
        found = self.quirk(request, body)
        answer = await found if isinstance(found, Awaitable) else found
        return answer if answer is not None else plain(body)


def verdict_in(body: Body) -> str:
    """The right verdict on a request's question, as JSON."""
    return json.dumps(verdict_on(body["messages"][-1]["content"]))


def completion(body: Body, content: Any = None, *, finish: str = "stop", message: Body | None = None, **top: Any) -> Body:
    """A chat completion; `top` replaces its own fields, and those that are None are left out."""
    said = {"role": "assistant", "content": verdict_in(body) if content is None else content} | (message or {})
    whole = {"id": "c", "object": "chat.completion", "model": body.get("model"), "usage": USAGE}
    choice = {"index": 0, "message": said, "finish_reason": finish}
    return {name: value for name, value in (whole | {"choices": [choice]} | top).items() if value is not None}


def plain(body: Body, content: Any = None, **more: Any) -> web.Response:
    """A completion as a response."""
    return web.json_response(completion(body, content, **more))


def error(status: int, body: Any, **headers: str) -> web.Response:
    """An error as a response."""
    return web.json_response(body, status=status, headers=headers)


def openai_error(message: str, **more: Any) -> Body:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


def refuses(field: str, status: int, body: Any) -> Quirk:
    """An endpoint that answers requests without a field, and the others with an error."""
    return lambda request, sent: error(status, body) if field in sent else None
