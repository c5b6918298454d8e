"""Exchanging the served variant in a running vLLM server: an ASGI middleware with one admin route.

    GET  /admin/variant                      what is served, and what can be
    POST /admin/variant {"variant": "NAME"}  drain, swap, probe, empty the prefix cache

A swap waits until no response is under way and holds new requests back meanwhile, so no response mixes two variants; every
response names its variant in a header. After a swap that failed nothing is generated until one succeeds. vLLM makes one
instance, from `--middleware`; what it needs stands in a file that an environment variable names.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.serving.guard import ADMIN_ROUTE, Receive, Scope, Send, bears, respond

CATALOGUE_VARIABLE, KEY_VARIABLE = "REFUSAL_SWAP_CATALOGUE", "REFUSAL_ADMIN_KEY"
ROUTE, HEADER = ADMIN_ROUTE, b"x-refusal-variant"
HERE = ("127.0.0.1", "::1")
MOST_BYTES = 4096  # of an admin request


class Gate:
    """Many responses at a time, or one swap. A swap that waits goes before requests that come later."""

    def __init__(self) -> None:
        self._condition = asyncio.Condition()
        self._under_way = 0
        self._swapping = False

    @asynccontextmanager
    async def response(self) -> AsyncIterator[None]:
        """While a response is made; waits for a swap."""
        async with self._condition:
            await self._condition.wait_for(lambda: not self._swapping)
            self._under_way += 1
        try:
            yield
        finally:
            async with self._condition:
                self._under_way -= 1
                self._condition.notify_all()

    @asynccontextmanager
    async def swap(self) -> AsyncIterator[None]:
        """While nothing else is: waits for other swaps, then for every response under way."""
        async with self._condition:
            await self._condition.wait_for(lambda: not self._swapping)
            self._swapping = True
        try:
            async with self._condition:
                await self._condition.wait_for(lambda: self._under_way == 0)
            yield
        finally:
            async with self._condition:
                self._swapping = False
                self._condition.notify_all()


class SwapMiddleware:
    """Around vLLM's application; see the module."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.catalogue: dict[str, Any] = json.loads(Path(os.environ[CATALOGUE_VARIABLE]).read_text())
        self.key = os.environ[KEY_VARIABLE]
        self.gate = Gate()
        self.current: str | None = "base"  # None after a swap that failed
        self.opened = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == ROUTE:
            status, answer = await self._admin(scope, receive)
            await respond(send, status, answer)
        elif scope["method"] == "POST":
            async with self.gate.response():
                if self.current is None:
                    await respond(send, 503, {"error": f"The last swap failed, so the weights are mixed. POST {ROUTE} again."})
                else:
                    await self.app(scope, receive, self._named(send))
        else:
            await self.app(scope, receive, send)

    def _named(self, send: Send) -> Send:
        assert self.current is not None
        value = f"{self.current}@{self.catalogue['variants'][self.current]['hash']}".encode()

        async def named(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (HEADER, value)]}
            await send(message)

        return named

    async def _admin(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, Any]]:
        if scope.get("client") is None or scope["client"][0] not in HERE:
            return 403, {"error": "The admin route answers this machine alone."}
        if not bears(scope, self.key):
            return 401, {"error": "Give the admin key: Authorization: Bearer KEY."}
        if scope["method"] == "GET":
            return 200, self._state()
        try:
            name = json.loads(await _body(receive))["variant"]
        except (ValueError, KeyError, TypeError):
            return 400, {"error": 'Expected a JSON object such as {"variant": "NAME"}.'}
        if name not in self.catalogue["variants"]:
            return 404, {"error": f"There is no variant '{name}'; there are {', '.join(self.catalogue['variants'])}."}
        async with self.gate.swap():
            return await self._swap(scope["app"].state.engine_client, name)

    async def _swap(self, engine: Any, name: str) -> tuple[int, dict[str, Any]]:
        variant, started, self.current = self.catalogue["variants"][name], time.monotonic(), None
        try:
            if not self.opened:
                await engine.collective_rpc("hotswap_open", args=(self.catalogue["base_dir"],))
                self.opened = True
            arguments = (variant["basis"], variant["alphas"], variant["keep_norms"])
            errors = await engine.collective_rpc("hotswap_apply", args=arguments)
            await engine.reset_prefix_cache()
        except Exception as error:  # whatever it is: the weights are not known until a swap succeeds
            return 500, {"error": f"The swap to {name} failed, and nothing is generated until one succeeds: {error}"}
        self.current = name
        return 200, {**self._state(), "seconds": round(time.monotonic() - started, 3), "probe_error": max(errors)}

    def _state(self) -> dict[str, Any]:
        known = self.catalogue["variants"]
        digest = None if self.current is None else known[self.current]["hash"]
        return {
            "variant": self.current,
            "variant_hash": digest,
            "variants": {name: entry["hash"] for name, entry in known.items()},
        }


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) <= MOST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
    raise ValueError("too long")
