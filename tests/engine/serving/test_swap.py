"""The swap's middleware at its edges, around a stand-in of vLLM's engine client: what a healthy engine never does."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.serving import swap

VARIANTS = {name: {"hash": f"hash of {name}", "basis": None, "alphas": {}, "keep_norms": False} for name in ("base", "k1")}
Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]


class Engine:
    """Answers as vLLM's client: `resets` are what reset_prefix_cache says, `fails` the call that raises."""

    def __init__(self, resets: list[bool] | None = None, fails: str = "") -> None:
        self.resets, self.fails = resets or [], fails
        self.calls: list[str] = []

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        self.calls.append(method)
        if method == self.fails:
            raise RuntimeError("the worker said no")
        if method == "hotswap_open":
            return [{"variant_hash": "", "sites": 60}]
        return [{"variant_hash": args[0], "probe_error": 0.001}]

    async def reset_prefix_cache(self) -> bool:
        self.calls.append("reset")
        return self.resets.pop(0) if self.resets else True


@pytest.fixture
def middleware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> swap.SwapMiddleware:
    (tmp_path / "catalogue.json").write_text(json.dumps({"opening": ["base", False, False], "variants": VARIANTS}))
    monkeypatch.setenv(swap.CATALOGUE_VARIABLE, str(tmp_path / "catalogue.json"))
    monkeypatch.setenv(swap.KEY_VARIABLE, "key")

    async def vllm(scope: dict[str, Any], receive: object, send: Any) -> None:
        body = json.dumps({"object": "list", "data": [{"id": "swappable", "object": "model"}]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": body[:9], "more_body": True})
        await send({"type": "http.response.body", "body": body[9:]})

    return swap.SwapMiddleware(vllm)


async def stay() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def ask(
    middleware: Any,
    engine: Engine,
    body: object,
    path: str = swap.ROUTE,
    method: str = "POST",
    *,
    key: str = "key",
    hang_up: Callable[[], Awaitable[dict[str, Any]]] = stay,
) -> tuple[int, dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    app = SimpleNamespace(state=SimpleNamespace(engine_client=engine))
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "app": app,
        "headers": [(b"authorization", f"Bearer {key}".encode()), (b"host", b"localhost:8000")],
    }
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}

    messages = [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await hang_up()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await middleware(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(text)


def test_a_swap_waits_for_the_engine_itself_and_the_list_of_models_tells(middleware: swap.SwapMiddleware) -> None:
    async def all_of_it() -> None:
        engine = Engine(resets=[False, False, True, True])
        status, state = await ask(middleware, engine, {"variant": "k1"})
        assert status == 200 and state["variant"] == "k1" and state["variant_hash"] == "hash of k1"
        assert engine.calls == ["reset", "reset", "reset", "hotswap_open", "hotswap_apply", "reset"]
        status, listing = await ask(middleware, engine, None, swap.MODELS, "GET")
        (card,) = listing["data"]
        assert card["id"] == "swappable" and card["variant"] == "k1" and set(card["variants"]) == {"base", "k1"}

    asyncio.run(all_of_it())


def test_an_engine_that_stays_busy_is_left_as_it_is(middleware: swap.SwapMiddleware) -> None:
    engine = Engine(resets=[False] * 100)
    status, answer = asyncio.run(ask(middleware, engine, {"variant": "k1", "wait": 0.2}))
    assert status == 409 and "nothing was changed" in answer["error"] and middleware.current == "base"
    assert set(engine.calls) == {"reset"}


def test_an_engine_that_takes_no_swap_goes_on_with_the_base(middleware: swap.SwapMiddleware) -> None:
    async def all_of_it() -> None:
        status, answer = await ask(middleware, Engine(fails="hotswap_open"), {"variant": "k1"})
        assert status == 500 and "holds base as before: the worker said no" in answer["error"]
        assert (await ask(middleware, Engine(), {}, "/v1/chat/completions"))[0] == 200

    asyncio.run(all_of_it())


@pytest.mark.parametrize("engine", [Engine(fails="hotswap_apply"), Engine(resets=[True, False])])
def test_after_a_swap_that_failed_nothing_is_generated_until_one_succeeds(
    engine: Engine, middleware: swap.SwapMiddleware
) -> None:
    async def all_of_it() -> None:
        status, answer = await ask(middleware, engine, {"variant": "k1"})
        assert status == 500 and "nothing is generated until one succeeds" in answer["error"]
        assert (await ask(middleware, engine, {}, "/v1/chat/completions"))[0] == 503
        assert (await ask(middleware, Engine(), {"variant": "base"}))[0] == 200
        assert (await ask(middleware, engine, {}, "/v1/chat/completions"))[0] == 200

    asyncio.run(all_of_it())


@pytest.mark.parametrize("body", [[], "k1", {}, {"variant": ["k1"]}, {"variant": "nobody"}, {"variant": "k1", "wait": "long"}])
def test_what_is_no_request_for_a_variant_changes_nothing(body: object, middleware: swap.SwapMiddleware) -> None:
    engine = Engine()
    assert asyncio.run(ask(middleware, engine, body))[0] in (400, 404) and engine.calls == []


@pytest.mark.parametrize(
    ("client", "server", "here"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "::", True),
        ("192.168.1.5", "192.168.1.5", True),
        ("192.168.1.6", "192.168.1.5", False),
        ("testclient", "127.0.0.1", False),
    ],
)
def test_the_admin_route_knows_this_machine(client: str, server: str, here: bool) -> None:
    assert swap._from_here({"client": (client, 1), "server": (server, 2)}) is here
    assert not swap._from_here({"client": None, "server": None})


@pytest.mark.parametrize("wait", [float("nan"), float("inf"), 1e308, -1, True, "1", None, [1]])
def test_a_wait_that_is_no_time_is_refused(wait: object, middleware: swap.SwapMiddleware) -> None:
    engine = Engine()
    assert asyncio.run(ask(middleware, engine, {"variant": "k1", "wait": wait}))[0] == 400 and engine.calls == []


def test_an_admin_who_hangs_up_lets_the_others_in_again(middleware: swap.SwapMiddleware) -> None:
    async def leave() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def both() -> tuple[int, float]:
        async with middleware.gate.response():  # a long response, which the swap waits for
            status, _ = await ask(middleware, Engine(), {"variant": "k1", "wait": 5}, hang_up=leave)
            started = time.monotonic()
            assert (await ask(middleware, Engine(), {}, "/v1/chat/completions"))[0] == 200
            return status, time.monotonic() - started

    status, waited = asyncio.run(both())
    assert status == 499 and waited < 0.5
    assert middleware.current == "base"


def test_wrong_keys_are_answered_one_a_second_and_the_right_one_at_once(
    middleware: swap.SwapMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "GUESS_S", 0.05)

    async def guess() -> tuple[list[int], float, float]:
        started = time.monotonic()
        guesses = [asyncio.create_task(ask(middleware, Engine(), {}, key=f"guess {number}")) for number in range(20)]
        await asyncio.sleep(0)
        assert (await ask(middleware, Engine(), None, method="GET"))[0] == 200
        right = time.monotonic() - started
        statuses = [(await task)[0] for task in guesses]
        return statuses, right, time.monotonic() - started

    statuses, right, total = asyncio.run(guess())
    assert (statuses.count(401), statuses.count(429)) == (16, 4)
    assert right < 0.05 and total > 16 * 0.05


@pytest.mark.parametrize(
    ("method", "status", "said"),
    [("OPTIONS", 200, b"OK"), ("HEAD", 405, b""), ("GET", 500, b"no list")],
)
def test_an_answer_that_is_no_list_of_models_passes_as_it_is(
    middleware: swap.SwapMiddleware, method: str, status: int, said: bytes
) -> None:
    async def vllm(scope: dict[str, Any], receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": said})

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    middleware.app = vllm
    asyncio.run(middleware({"type": "http", "path": swap.MODELS, "method": method, "headers": []}, stay, send))
    assert [sent[0]["status"], sent[1]["body"]] == [status, said]
