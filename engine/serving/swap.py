"""Exchanging the served variant in a running vLLM server: an ASGI middleware with one admin route.

    GET  /admin/variant                      what is served, and what can be
    POST /admin/variant {"variant": "NAME"}  drain, swap, probe, empty the prefix cache; "wait": seconds at most for the drain

A swap waits until no response is under way and holds new requests back meanwhile, so no response mixes two variants; every
response names its variant in a header, and /v1/models says which one is served. After a swap that failed nothing is generated
until one succeeds. vLLM makes one instance, from `--middleware`; what it needs stands in a file that a variable names.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from engine.inference.answers import checked_answers
from engine.serving.gate import Gate, GivenUp
from engine.serving.guard import ADMIN_ROUTE, AsgiScope, Receive, Send, bears, respond
from engine.vllm_compat import served_engine

CATALOGUE_VARIABLE, KEY_VARIABLE = "REFUSAL_SWAP_CATALOGUE", "REFUSAL_ADMIN_KEY"
ROUTE, HEADER = ADMIN_ROUTE, b"x-refusal-variant"
MODELS = "/v1/models"
PATIENCE_S, MOST_PATIENCE_S, IDLE_POLL_S = 300.0, 600.0, 0.05
GUESS_S, MOST_GUESSES = 1.0, 16
MOST_BYTES = 4096  # of an admin request


class SwapMiddleware:
    """Around vLLM's application; see the module."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.catalogue: dict[str, Any] = json.loads(Path(os.environ[CATALOGUE_VARIABLE]).read_text())
        self.key = os.environ[KEY_VARIABLE]
        self.gate = Gate()
        self.current: str | None = "base"  # None after a swap that failed
        self.opened = False
        self.guesses, self.guessing = 0, asyncio.Lock()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # one connection makes many responses, which could not be told apart
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == ROUTE:
            await respond(send, *await self._admin(scope, receive))
        elif scope["method"] == "POST":
            async with self.gate.response():
                if self.current is None:
                    await respond(send, 503, {"error": f"The last swap failed, so the weights are mixed. POST {ROUTE} again."})
                else:
                    await self.app(scope, receive, self._named(send))
        else:
            lists = (scope["method"], scope["path"]) == ("GET", MODELS)  # another method's answer is no list
            await self.app(scope, receive, self._listed(send) if lists else send)

    def _named(self, send: Send) -> Send:
        assert self.current is not None
        value = f"{self.current}@{self.catalogue['variants'][self.current]['hash']}".encode()

        async def named(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (HEADER, value)]}
            await send(message)

        return named

    def _listed(self, send: Send) -> Send:
        """vLLM's list of models with what this one is now and can become."""
        start: dict[str, Any] = {}
        body = bytearray()

        async def listed(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            if start["status"] != 200:
                await send(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    await respond(send, start["status"], _with_state(bytes(body), self._state()))

        return listed

    async def _admin(self, scope: AsgiScope, receive: Receive) -> tuple[int, dict[str, Any]]:
        if not _from_here(scope):
            return 403, {"error": "The admin route answers this machine alone."}
        if not bears(scope, self.key):
            return await self._wrong_key()
        if scope["method"] == "GET":
            return 200, self._state()
        try:
            asked = json.loads(await _body(receive))
            name, patience = asked["variant"], _patience(asked.get("wait", PATIENCE_S))
        except (ValueError, KeyError, TypeError, AttributeError):
            expected = f'such as {{"variant": "NAME"}}; "wait" is 0 to {MOST_PATIENCE_S:g} seconds'
            return 400, {"error": f"Expected a JSON object {expected}."}
        if not isinstance(name, str) or name not in self.catalogue["variants"]:
            return 404, {"error": f"There is no variant '{name}'; there are {', '.join(self.catalogue['variants'])}."}
        try:
            async with self.gate.swap(patience, partial(_gone, receive)):
                return await self._swap(served_engine(scope["app"]), name, patience)
        except GivenUp:
            return 499, {"error": "Nobody waits for this swap any more, and nothing was changed."}
        except TimeoutError:
            return 409, {"error": f"Responses are still under way after {patience:g} s, and nothing was changed. Try again."}

    async def _wrong_key(self) -> tuple[int, dict[str, Any]]:
        """Wrong keys are answered one after the other, a second each: guessing takes for ever, the right key no time."""
        if self.guesses >= MOST_GUESSES:
            return 429, {"error": "Too many wrong keys at once."}
        self.guesses += 1
        try:
            async with self.guessing:
                await asyncio.sleep(GUESS_S)
        finally:
            self.guesses -= 1
        return 401, {"error": "Give the admin key: Authorization: Bearer KEY."}

    async def _swap(self, engine: Any, name: str, patience: float) -> tuple[int, dict[str, Any]]:
        variant, started = self.catalogue["variants"][name], time.monotonic()
        async with asyncio.timeout(patience):
            while await engine.reset_prefix_cache() is False:  # some request is in the engine still, such as one given up
                await asyncio.sleep(IDLE_POLL_S)
        try:
            if not self.opened:
                checked_answers(await engine.collective_rpc("hotswap_open", args=tuple(self.catalogue["opening"])), "")
                self.opened = True
        except Exception as error:
            return 500, {"error": f"This engine takes no swap, and holds {self.current} as before: {error}"}
        self.current = None
        try:
            basis = None if variant["basis"] is None else Path(variant["basis"]).read_bytes()
            arguments = (variant["hash"], basis, variant["alphas"], variant["keep_norms"])
            answers = checked_answers(await engine.collective_rpc("hotswap_apply", args=arguments), variant["hash"])
            if await engine.reset_prefix_cache() is False:
                raise RuntimeError("the prefix cache could not be emptied")
        except Exception as error:  # whatever it is: the weights are not known until a swap succeeds
            return 500, {"error": f"The swap to {name} failed, and nothing is generated until one succeeds: {error}"}
        self.current = name
        worst = max(one["probe_error"] for one in answers)
        return 200, {**self._state(), "seconds": round(time.monotonic() - started, 3), "probe_error": worst}

    def _state(self) -> dict[str, Any]:
        known = self.catalogue["variants"]
        digest = None if self.current is None else known[self.current]["hash"]
        return {
            "variant": self.current,
            "variant_hash": digest,
            "variants": {name: entry["hash"] for name, entry in known.items()},
        }


def _from_here(scope: AsgiScope) -> bool:
    """Whether a request comes from this machine: by loopback, or from the very address that it came to."""
    if not scope.get("client") or not scope.get("server"):
        return False
    theirs, ours = (_address(scope[end][0]) for end in ("client", "server"))
    return theirs is not None and (theirs.is_loopback or theirs == ours)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text)
        return (getattr(address, "ipv4_mapped", None) or address) if address.version == 6 else address
    return None


def _with_state(body: bytes, state: dict[str, Any]) -> dict[str, Any]:
    listing = dict(json.loads(body))
    for card in listing.get("data", []):
        card |= state
    return listing


def _patience(value: Any) -> float:
    """Seconds to wait. Raises ValueError for what is no number in range: NaN compares with nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_PATIENCE_S:
        raise ValueError("wait")
    return float(value)


async def _gone(receive: Receive) -> None:
    """Ends when the client has hung up."""
    while (await receive()).get("type") != "http.disconnect":
        pass


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) <= MOST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
    raise ValueError("too long")
