"""The key for every route of a vLLM server. vLLM's own check covers /v1 and a few more, and leaves open /invocations, which
generates as /v1 does (its documentation of --api-key says so): an edited model behind a key is behind it whole."""

import json
import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from engine.serving.checks import KEY_VARIABLE

ADMIN_ROUTE = "/admin/variant"  # takes a key of its own: see engine.serving.swap
OPEN = ("/health", "/ping", ADMIN_ROUTE)
AsgiScope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class KeyMiddleware:
    """Around vLLM's application, by --middleware: 401 for a request without the key, whatever its path but a look at health."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.key = os.environ[KEY_VARIABLE]

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] in ("http", "websocket") and scope["path"] not in OPEN and not is_preflight(scope)
        if not guarded or bears(scope, self.key):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await respond(send, 401, {"error": "Give the key: Authorization: Bearer KEY."})


def is_preflight(scope: AsgiScope) -> bool:
    """Whether a browser asks if a page may ask: vLLM's application answers that itself. Any other OPTIONS reaches a route."""
    return scope.get("method") == "OPTIONS" and {b"origin", b"access-control-request-method"} <= dict(scope["headers"]).keys()


def bears(scope: AsgiScope, key: str) -> bool:
    """Whether a request's Authorization header holds the key."""
    scheme, _, given = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
    return bool(scheme.lower() == b"bearer") and secrets.compare_digest(given, key.encode())


async def respond(send: Send, status: int, answer: dict[str, Any]) -> None:
    """A JSON answer."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
