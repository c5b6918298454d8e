"""What stands below the server: heads of a size, requests that arrive in time, and everything else as uvicorn has it."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from engine.serving import wire

ANSWER = b"answered"


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads a whole body, waits where the path says so, and answers with the body's length."""
    if scope["type"] != "http":
        return
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    await asyncio.sleep(float(scope["path"].removeprefix("/wait/")) if scope["path"].startswith("/wait/") else 0)
    said = b"%s %d" % (ANSWER, length)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A uvicorn server as vLLM starts one, after `bind`."""
    monkeypatch.setattr(wire.auto, "AutoHTTPProtocol", wire.HttpToolsProtocol)
    monkeypatch.setattr(wire, "MOST_SECONDS", 0.4)
    wire.bind()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_keep_alive=30))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)


def said(port: int, *parts: bytes, pause_s: float = 0.0) -> tuple[bytes, float]:
    """What the server answers to parts sent one after another until it hangs up, and after how many seconds it does."""
    begun, found = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        try:
            for part in parts:
                line.sendall(part)
                time.sleep(pause_s)
            while part := line.recv(2**16):
                found += part
        except (ConnectionResetError, BrokenPipeError):
            pass
    return found, time.monotonic() - begun


GET = b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_a_request_is_answered(port: int) -> None:
    assert said(port, GET % b"now")[0].endswith(ANSWER + b" 0")


def test_a_request_in_small_parts_is_answered(port: int) -> None:
    assert said(port, *(bytes([byte]) for byte in GET % b"now"))[0].endswith(ANSWER + b" 0")


def test_a_long_answer_is_waited_for(port: int) -> None:
    found, taken = said(port, GET % b"wait/1.2")
    assert found.endswith(ANSWER + b" 0")
    assert taken > 1.2


def test_a_connection_is_used_again(port: int) -> None:
    first = GET.replace(b"Connection: close\r\n", b"") % b"wait/0.6"
    assert said(port, first, GET % b"now", pause_s=0.8)[0].count(ANSWER) == 2


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"\r\n",
        b"GET /now HT",
        b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
        b"POST /now HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
        GET.replace(b"Connection: close\r\n", b"") % b"now" + b"GET /now HT",
    ],
    ids=["nothing", "an empty line", "half a head", "half a body", "half a chunk", "half of a second one"],
)
def test_what_does_not_arrive_in_time_is_hung_up_on(port: int, part: bytes) -> None:
    assert said(port, part)[1] < 3


def test_a_slow_head_does_not_get_more_time_for_each_byte(port: int) -> None:
    assert said(port, *[b"G"] * 30, pause_s=0.1)[1] < 3.3


def test_a_long_head_is_refused(port: int) -> None:
    found, _ = said(port, b"GET /now HTTP/1.1\r\nHost: x\r\n", b"X: " + b"y" * (2 * wire.MOST_HEAD_BYTES))
    assert found.startswith(b"HTTP/1.1 400") and b"The head of a request has 128 KiB at most." in found


def test_many_fields_are_a_long_head_too(port: int) -> None:
    fields = b"".join(b"X%d: y\r\n" % number for number in range(40_000))
    assert said(port, b"GET /now HTTP/1.1\r\n", fields)[0].startswith(b"HTTP/1.1 400")


def test_a_long_body_is_no_long_head(port: int) -> None:
    length = 4 * wire.MOST_HEAD_BYTES
    post = b"POST /now HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % length
    assert said(port, post, b"y" * length)[0].endswith(b"%s %d" % (ANSWER, length))
