"""Requests before vLLM sees them: whole, of a size and for this machine, whatever a client sends."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from engine.serving import checks, door, guard, launch
from engine.serving.gate import Gate


class App:
    """Notes the bodies that it is given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.bodies.append((await receive())["body"] if scope["method"] == "POST" else b"")
            await send({"type": "http.response.start", "status": 200, "headers": []})


async def through(app: Any, parts: Sequence[dict[str, Any]], *, method: str = "POST", host: str = "localhost:8000") -> int | None:
    """The status that a client of these messages gets; None where it hung up. After its messages it says nothing more."""
    sent, left = [], list(parts)

    async def receive() -> dict[str, Any]:
        return left.pop(0) if left else await asyncio.Event().wait()  # type: ignore[func-returns-value]

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", value.encode()) for value in host.split("|") if value]
    await app({"type": "http", "method": method, "path": "/v1/completions", "headers": headers}, receive, send)
    return sent[0]["status"] if sent else None


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setenv(checks.HOSTS_VARIABLE, ",".join(checks.LOCAL_HOSTS))
    return App()


def test_a_body_in_parts_arrives_whole(app: App) -> None:
    assert asyncio.run(through(door.DoorMiddleware(app), [part(b"one ", True), part(b"two")])) == 200
    assert app.bodies == [b"one two"]


def test_a_body_that_never_ends_is_refused_and_holds_no_gate(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MOST_SECONDS", 0.2)
    gate = Gate()

    async def inner(scope: dict[str, Any], receive: Any, send: Any) -> None:
        async with gate.response():
            await app(scope, receive, send)

    async def both() -> int | None:
        half = asyncio.create_task(through(door.DoorMiddleware(inner), [part(b"one", True)]))
        await asyncio.sleep(0.01)
        async with gate.swap(0.1):  # nobody is in the gate
            pass
        return await half

    assert asyncio.run(both()) == 408
    assert app.bodies == []


def test_a_long_body_is_refused_before_it_is_held(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MOST_BYTES", 10)
    assert asyncio.run(through(door.DoorMiddleware(app), [part(b"x" * 6, True), part(b"x" * 6, True)])) == 413


def test_a_client_that_hangs_up_is_not_answered(app: App) -> None:
    assert asyncio.run(through(door.DoorMiddleware(app), [part(b"x", True), {"type": "http.disconnect"}])) is None


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("", 403),
        ("localhost|evil.example", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_on_loopback_a_request_names_this_machine(app: App, host: str, status: int, method: str) -> None:
    assert asyncio.run(through(door.DoorMiddleware(app), [part(b"")], method=method, host=host)) == status


def test_an_open_address_takes_any_name_and_a_key() -> None:
    assert launch._environment("k", checks.ServeOptions(host="0.0.0.0")) == {checks.HOSTS_VARIABLE: "", checks.KEY_VARIABLE: "k"}
    assert "localhost" in launch._environment(None, checks.ServeOptions())[checks.HOSTS_VARIABLE]
    assert launch._around("k", launch.SWAPPER)[1::2] == [launch.SWAPPER, launch.DOOR, launch.GUARD]


def test_the_shell_cannot_open_the_developers_routes() -> None:
    assert launch.NEEDED["VLLM_SERVER_DEV_MODE"] == launch.NEEDED["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "0"


BROWSER = {b"origin": b"http://a.example", b"access-control-request-method": b"POST"}


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("OPTIONS", {}, 401),
        ("OPTIONS", {b"origin": b"http://a.example"}, 401),
        ("OPTIONS", BROWSER, 200),
        ("GET", BROWSER, 401),
        ("TRACE", {}, 401),
        ("OPTIONS", {b"authorization": b"Bearer the-key"}, 200),
    ],
)
def test_a_browsers_question_alone_needs_no_key(
    monkeypatch: pytest.MonkeyPatch, method: str, headers: dict[bytes, bytes], status: int
) -> None:
    monkeypatch.setenv(checks.KEY_VARIABLE, "the-key")
    found: list[int] = []

    async def send(message: dict[str, Any]) -> None:
        found.append(message.get("status", 0))

    scope = {"type": "http", "method": method, "path": "/metrics", "headers": list(headers.items())}
    asyncio.run(guard.KeyMiddleware(App())(scope, None, send))  # type: ignore[arg-type]
    assert found[0] == status
