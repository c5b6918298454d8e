"""Many variants in one running vLLM server, each request with its own: an ASGI middleware around vLLM's application.

    POST /v1/chat/completions {"variant": "NAME", "alpha": 0.7, ...}    also "add", "site", "positions"; or "model": "NAME"

A request without a variant is the base's. What it asks for goes to the worker among vLLM's own extra arguments, and into the
salt of the prefix cache, so that no cached prompt of one variant is read under another. What cannot be done is that request's
400; the engine goes on. vLLM makes one instance, from `--middleware`; what it needs stands in a file that a variable names.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.inference.answers import checked_answers
from engine.runtime.requests import EXTRA, Asked, checked
from engine.serving.door import again, whole_body
from engine.serving.guard import AsgiScope, Receive, Send, respond
from engine.vllm_compat import served_engine

CATALOGUE_VARIABLE = "REFUSAL_STEER_CATALOGUE"
HEADER = b"x-refusal-variant"
STEERED = ("/v1/chat/completions", "/v1/completions")
OF_A_VARIANT = ("alpha", "add", "site", "positions")
BASE = "base"
XARGS, SALT = "vllm_xargs", "cache_salt"


class SteerMiddleware:
    """Around vLLM's application; see the module."""

    def __init__(self, app: Any) -> None:
        self.app = app
        catalogue = json.loads(Path(os.environ[CATALOGUE_VARIABLE]).read_text())
        self.variants: dict[str, dict[str, Any]] = catalogue["variants"]
        self.sites, self.num_blocks = tuple(catalogue["sites"]), int(catalogue["num_blocks"])
        self.is_open, self.opening = False, asyncio.Lock()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # its messages carry requests that are not read here
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
        elif (body := await whole_body(receive)) is not None:
            await self._answer(scope, body, receive, send)

    async def _answer(self, scope: AsgiScope, body: bytes, receive: Receive, send: Send) -> None:
        try:
            request, asked = self._read(scope["path"], body)
        except EngineError as error:
            await respond(send, 400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})
            return
        if asked is not None:
            await self._open(served_engine(scope["app"]))
        if request is not None:
            body = json.dumps(request).encode()
            kept = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
            scope = {**scope, "headers": [*kept, (b"content-length", str(len(body)).encode())]}
        await self.app(scope, again(body, receive), self._named(send, asked))

    def _read(self, path: str, body: bytes) -> tuple[dict[str, Any] | None, Asked | None]:
        """The request as vLLM takes it (None: as it came) and what it asks for. Raises EngineError for what cannot be done."""
        try:
            request = json.loads(body)
        except ValueError:
            return None, None  # vLLM says so itself
        if not isinstance(request, dict):
            return None, None
        if EXTRA in (request.get(XARGS) or {}):
            raise EngineError(f'"{XARGS}" may not hold "{EXTRA}". Name a variant: {{"variant": "NAME", "alpha": 0.7}}.')
        if path not in STEERED:
            return self._elsewhere(path, request)
        asked = self.asked_of(request)
        request = {name: value for name, value in request.items() if name not in ("variant", *OF_A_VARIANT)}
        if (salt := _salt(request.get(SALT), asked)) is not None:
            request[SALT] = salt
        if asked is not None:
            request[XARGS] = {**(request.get(XARGS) or {}), **asked.extra_args()}
        return request, asked

    def _elsewhere(self, path: str, request: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Asked | None]:
        """Other routes answer as the base: what asks for more there would be answered as if it had not."""
        if "variant" in request or request.get("model") in self.variants:
            raise EngineError(f"{path} answers as the base alone. Variants are for {' and '.join(STEERED)}.")
        if (given := request.get(SALT)) is not None:
            return {**request, SALT: _salt(given, None)}, None
        return None, None

    def asked_of(self, request: Mapping[str, Any]) -> Asked | None:
        """What a request asks for: a variant by `variant`, else by `model`; None for the base."""
        name = request.get("variant", request.get("model"))
        if name is None or name == BASE or ("variant" not in request and name not in self.variants):
            if unread := [key for key in OF_A_VARIANT if key in request]:
                raise EngineError(f'"{unread[0]}" is of a variant, and the request names none. {self._known()}')
            return None
        if not isinstance(name, str) or name not in self.variants:
            raise EngineError(f"There is no variant {name!r}. {self._known()}")
        known = self.variants[name]
        usual = {"alpha": 0.0 if "add" in request else known["alpha"], "add": 0.0, "site": known["site"], "positions": "every"}
        given = {key: request.get(key, value) for key, value in usual.items()}
        if not all(isinstance(given[key], str) for key in ("site", "positions")):
            raise EngineError("site and positions are names, such as writes and every.")
        asked = checked(Asked(known["hash"], **given), self.sites, self.num_blocks)
        return None if asked.is_nothing else asked

    def _known(self) -> str:
        return f"There are {BASE}, {', '.join(self.variants)}."

    async def _open(self, engine: Any) -> None:
        """Have the workers take up the variants' rows, once, before the first request that names one."""
        async with self.opening:
            if self.is_open:
                return
            for known in self.variants.values():
                arguments = (known["hash"], Path(known["rows"]).read_bytes())
                checked_answers(await engine.collective_rpc("runtime_put", args=arguments), known["hash"])
            self.is_open = True

    def _named(self, send: Send, asked: Asked | None) -> Send:
        """Every answer says whose it is."""
        names = {known["hash"]: name for name, known in self.variants.items()}
        value = BASE if asked is None else f"{names[asked.variant]}@{asked.variant}; alpha={asked.alpha:g}; add={asked.add:g}"

        async def named(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (HEADER, value.encode())]}
            await send(message)

        return named


def _salt(given: Any, asked: Asked | None) -> str | None:
    """The prefix cache's salt: a client's own never equals another variant's."""
    own = None if asked is None else asked.cache_salt()
    if given is None:
        return own
    return f"{own or BASE}|{given}"
