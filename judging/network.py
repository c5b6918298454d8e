"""The network: one request sent, its body read up to a limit. Nothing else in this package opens a connection.

    client = open_client(endpoint, key, max_connections=64)
    reply = await complete(client, request, timeout_s=60)     # a Reply, or a Fault is raised

It does not retry, pace or store: that is the worker's, the fan-out's and the cache's. A redirect is followed only where it
keeps method, body and host: neither key nor prompts go to an address that nobody wrote down.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from judging.completion import Reply, read_completion
from judging.endpoint import AUTHORIZATION, Endpoint
from judging.errors import Fault
from judging.problems import clean, of_status

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI
    from pydantic import SecretStr

CONNECT_S = 10.0
MOST_BYTES = 4 * 2**20  # of a decoded body: a reply of a hundred thousand tokens has a tenth of it
# Of a hundred bodies under way each may hold this much, and so many of them more: 100 x 4 MiB would be all memory there is.
SHORT_BYTES, MOST_LONG = 2**17, 4
_turns: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]" = WeakKeyDictionary()
KEPT_REDIRECTS = (307, 308)


def open_client(endpoint: Endpoint, key: "SecretStr | None", max_connections: int) -> "AsyncOpenAI":
    """An openai client over aiohttp, without retries of its own. Raises JudgeError for a ca_file that cannot be read."""
    import httpx2
    from openai import AsyncOpenAI, DefaultAioHttpClient

    timeout = httpx2.Timeout(endpoint.timeout_s, connect=min(CONNECT_S, endpoint.timeout_s))
    limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    hooks: dict[str, list[Callable[..., Any]]] = {"request": [_move_key(endpoint)], "response": [_check]}
    verify = endpoint.ssl_context() or True
    return AsyncOpenAI(
        api_key=key.get_secret_value() if key else "none",
        base_url=endpoint.base_url,
        default_query=endpoint.query,
        default_headers=endpoint.headers,
        max_retries=0,
        timeout=timeout,
        http_client=DefaultAioHttpClient(limits=limits, timeout=timeout, verify=verify, event_hooks=hooks),
    )


def _move_key(endpoint: Endpoint) -> "Callable[[httpx2.Request], Awaitable[None]]":
    """A hook that sends the key in `key_header`, and leaves it where it is for a bearer token."""

    async def move(request: "httpx2.Request") -> None:
        if endpoint.key_header != AUTHORIZATION:
            request.headers[endpoint.key_header] = request.headers.pop(AUTHORIZATION, "").removeprefix("Bearer ")

    return move


async def complete(client: "AsyncOpenAI", request: dict[str, Any], timeout_s: float) -> Reply:
    """The reply to one request, complete within `timeout_s` seconds of sending it.

    Raises Fault for everything that can go wrong on the way.
    """
    import aiohttp
    import httpx2
    import openai

    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):  # the client's own timeout starts anew with every byte
            async with client.chat.completions.with_streaming_response.create(**request) as raw:
                body = await read_text(raw.iter_bytes())
    except (TimeoutError, openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError) as error:
        raise of_connection(error, timeout_s) from None
    return read_completion(body, 1000 * (time.monotonic() - started))


async def read_text(parts: AsyncIterator[bytes]) -> str:
    """A body's text. Of those longer than SHORT_BYTES, MOST_LONG are read at a time in an event loop; the others wait unread.

    Raises Fault for one of more than MOST_BYTES, decoded, before the rest of it is read.
    """
    body = bytearray()
    async with AsyncExitStack() as turn:
        waited = False
        async for part in parts:
            if not waited and len(body) + len(part) > SHORT_BYTES:
                waited = True
                await turn.enter_async_context(_turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MOST_LONG)))
            body += part
            if len(body) > MOST_BYTES:
                body.clear()  # the Fault's traceback would keep it
                raise Fault("passing", f"the body is longer than {MOST_BYTES // 2**20} MiB; the rest was not read")
        return body.decode("utf-8", "replace")


async def _check(response: "httpx2.Response") -> None:
    """Raise the Fault of a response that is no reply, from its head and at most MOST_BYTES of its body."""
    if response.has_redirect_location:
        _check_redirect(response)
    elif not response.is_success:
        raise of_status(response.status_code, await read_text(response.aiter_bytes()), response.headers)
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        raise Fault("page", "the reply is a stream, which was not asked for")


def _check_redirect(response: "httpx2.Response") -> None:
    url, target = response.url, response.url.join(response.headers["location"])
    same = (url.scheme, url.host, url.port) == (target.scheme, target.host, target.port)
    if same and response.status_code in KEPT_REDIRECTS:
        return
    address = clean(str(target.copy_with(query=None)))
    raise Fault("barred", f"HTTP {response.status_code}: a redirect to {address}, which is not followed")


def of_connection(error: Exception, timeout_s: float) -> Fault:
    """The Fault of a broken connection, read from the chain of causes: the client calls a refused connection a timeout."""
    import aiohttp
    import httpx2

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    if known := next((cause for cause in causes if isinstance(cause, Fault)), None):
        return known
    not_there = aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError
    if refused := next((cause for cause in causes if isinstance(cause, not_there)), None):
        return Fault("unreachable", f"the connection failed ({clean(str(refused))})")
    if lost := next((cause for cause in causes if isinstance(cause, aiohttp.ClientError)), None):
        return Fault("passing", f"the connection was lost ({type(lost).__name__}: {clean(str(lost))})")
    if isinstance(error, TimeoutError | httpx2.TimeoutException) or "timed out" in str(error):
        return Fault("passing", f"no complete answer within {timeout_s:.3g} s", strained=True)
    return Fault("passing", f"the connection failed ({type(causes[-1]).__name__}: {clean(str(causes[-1]))})")
