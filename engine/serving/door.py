"""What a request is before vLLM's application, or the gate of a swap, sees it: for this machine's name, and whole.

A request whose body comes slowly holds nothing up: its body is read here, up to a size and a time. On loopback the Host header
has to name this machine, so that a web page, whose own name was bent to this address, reaches nothing.
"""

import asyncio
import os
from typing import Any

from engine.serving import wire
from engine.serving.checks import HOSTS_VARIABLE
from engine.serving.guard import AsgiScope, Receive, Send, respond

MOST_BYTES, MOST_SECONDS = 64 * 2**20, 60.0

wire.bind()  # the server imports this module before it chooses a protocol, and gives no other place to say which


class TooLong(Exception):
    """A body of more than MOST_BYTES."""


class DoorMiddleware:
    """Around vLLM's application and the swap's, within the guard's: 403 for another Host, 408 and 413 for slow or long bodies."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.hosts = [name for name in os.environ.get(HOSTS_VARIABLE, "").split(",") if name]

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif self.hosts and host_of(scope) not in self.hosts:
            await self._refuse(
                scope, send, 403, f"This server answers to {', '.join(self.hosts)}. A proxy has to send such a Host."
            )
        elif scope["type"] == "websocket" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
        else:
            await self._enter(scope, receive, send)

    async def _enter(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(MOST_SECONDS):
                body = await whole_body(receive)
        except TooLong:
            await self._refuse(scope, send, 413, f"A request has {MOST_BYTES // 2**20} MiB at most.")
        except TimeoutError:
            await self._refuse(scope, send, 408, f"The body was not there within {MOST_SECONDS:g} s.")
        else:
            if body is not None:
                await self.app(scope, again(body, receive), send)

    @staticmethod
    async def _refuse(scope: AsgiScope, send: Send, status: int, why: str) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await respond(send, status, {"error": why})


def host_of(scope: AsgiScope) -> str:
    """The name in a request's Host header, without the port; "" where there is none, or more than one."""
    given = [value.decode("latin-1").strip().lower() for name, value in scope["headers"] if name == b"host"]
    if len(given) != 1:
        return ""
    name, colon, port = given[0].rpartition(":")
    return name if colon and port.isdigit() else given[0]


async def whole_body(receive: Receive) -> bytes | None:
    """A request's body; None where the client went away before its end. Raises TooLong."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            raise TooLong
        if not message.get("more_body"):
            return bytes(body)


def again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read, then what comes after it."""
    given = False

    async def first() -> dict[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return first
