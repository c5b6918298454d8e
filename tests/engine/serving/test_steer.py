"""Requests that carry a variant: what the middleware makes of them, and a real server with eight clients of eight variants."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from engine.runtime.requests import EXTRA, Asked
from engine.serving import steer
from tests.served import wait_until_healthy

CHAT = "/v1/chat/completions"
HASH = "c" * 16


class Client:
    """vLLM's client as far as it is used: takes up rows."""

    def __init__(self) -> None:
        self.puts: list[str] = []

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        self.puts.append(args[0])
        return [{"variant_hash": args[0], "places": 3}]


@pytest.fixture
def middleware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> steer.SteerMiddleware:
    (tmp_path / "rows").write_bytes(b"rows")
    variant = {"hash": HASH, "rows": str(tmp_path / "rows"), "alpha": 1.0, "site": "writes"}
    catalogue = {"sites": ["inputs", "writes"], "num_blocks": 4, "variants": {"k1": variant}}
    (tmp_path / "catalogue.json").write_text(json.dumps(catalogue))
    monkeypatch.setenv(steer.CATALOGUE_VARIABLE, str(tmp_path / "catalogue.json"))

    async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        length = dict(scope["headers"]).get(b"content-length", b"").decode()
        answer = json.dumps({"got": json.loads(body) if body else None, "length": length, "bytes": len(body)}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    return steer.SteerMiddleware(echo)


def ask(
    middleware: steer.SteerMiddleware, request: object, path: str = CHAT, client: Client | None = None
) -> tuple[int, Any, str]:
    """Status, answer and the variant's header."""
    sent: list[dict[str, Any]] = []
    app = SimpleNamespace(state=SimpleNamespace(engine_client=client or Client()))
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    headers = [(b"content-length", str(len(body)).encode())]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "app": app}
    asyncio.run(middleware(scope, receive, send))
    header = dict(sent[0]["headers"]).get(steer.HEADER, b"").decode()
    return sent[0]["status"], json.loads(sent[1]["body"]), header


def test_a_request_without_a_variant_is_the_bases(middleware: steer.SteerMiddleware) -> None:
    status, answer, header = ask(middleware, {"model": "base", "messages": []})
    assert (status, header) == (200, "base")
    assert answer["got"] == {"model": "base", "messages": []}


def test_a_variant_goes_to_the_worker_and_into_the_salt(middleware: steer.SteerMiddleware) -> None:
    _, answer, header = ask(middleware, {"model": "base", "variant": "k1", "alpha": 0.7})
    expected = Asked(HASH, 0.7, 0.0, "writes", "every")
    assert answer["got"] == {
        "model": "base",
        "vllm_xargs": {EXTRA: [HASH, 0.7, 0.0, "writes", "every"]},
        "cache_salt": expected.cache_salt(),
    }
    assert header == f"k1@{HASH}; alpha=0.7; add=0"


def test_the_length_of_the_body_is_that_of_what_is_passed_on(middleware: steer.SteerMiddleware) -> None:
    answer = ask(middleware, {"variant": "k1"})[1]
    assert int(answer["length"]) == answer["bytes"]


def test_a_models_name_is_a_variant_at_its_own_strength(middleware: steer.SteerMiddleware) -> None:
    answer = ask(middleware, {"model": "k1"})[1]
    assert answer["got"]["vllm_xargs"][EXTRA] == [HASH, 1.0, 0.0, "writes", "every"]


def test_an_addition_takes_nothing_out(middleware: steer.SteerMiddleware) -> None:
    answer = ask(middleware, {"variant": "k1", "add": 2.5, "site": "block:2"})[1]
    assert answer["got"]["vllm_xargs"][EXTRA] == [HASH, 0.0, 2.5, "block:2", "every"]


def test_a_strength_of_nothing_is_the_base_to_the_bit(middleware: steer.SteerMiddleware) -> None:
    assert "vllm_xargs" not in ask(middleware, {"variant": "k1", "alpha": 0})[1]["got"]


def test_the_workers_get_the_rows_once(middleware: steer.SteerMiddleware) -> None:
    client = Client()
    for _ in range(3):
        ask(middleware, {"variant": "k1"}, client=client)
    assert client.puts == [HASH]


def test_a_clients_own_salt_never_equals_a_variants(middleware: steer.SteerMiddleware) -> None:
    salt = Asked(HASH, 1.0, 0.0, "writes").cache_salt()
    for_base = ask(middleware, {"model": "base", "cache_salt": salt})[1]["got"]["cache_salt"]
    for_variant = ask(middleware, {"variant": "k1", "cache_salt": "mine"})[1]["got"]["cache_salt"]
    assert for_base == f"base|{salt}"
    assert for_variant == f"{salt}|mine"


@pytest.mark.parametrize(
    ("request_", "path", "message"),
    [
        ({"variant": "k9"}, CHAT, "There is no variant 'k9'. There are base, k1."),
        ({"variant": 3}, CHAT, "There is no variant 3."),
        ({"variant": "k1", "alpha": "much"}, CHAT, "alpha takes a finite number; found 'much'."),
        ({"variant": "k1", "alpha": True}, CHAT, "alpha takes a finite number; found True."),
        ({"variant": "k1", "site": "head"}, CHAT, "This engine has the sites inputs, writes, block:0 to block:3; found 'head'."),
        ({"variant": "k1", "site": ["writes"]}, CHAT, "site and positions are names"),
        ({"variant": "k1", "positions": "odd"}, CHAT, "positions takes every, prompt, response, last; found 'odd'."),
        ({"alpha": 0.5}, CHAT, '"alpha" is of a variant, and the request names none.'),
        ({"vllm_xargs": {EXTRA: []}}, CHAT, f'"vllm_xargs" may not hold "{EXTRA}".'),
        ({"vllm_xargs": {EXTRA: []}}, "/v1/responses", f'"vllm_xargs" may not hold "{EXTRA}".'),
        ({"variant": "k1"}, "/v1/responses", "/v1/responses answers as the base alone."),
        ({"model": "k1"}, "/v1/messages", "/v1/messages answers as the base alone."),
    ],
)
def test_what_cannot_be_done_is_that_requests_400(
    middleware: steer.SteerMiddleware, request_: dict[str, Any], path: str, message: str
) -> None:
    status, answer, _ = ask(middleware, request_, path)
    assert status == 400
    assert answer["error"]["message"].startswith(message)


def test_what_is_no_json_is_vllms_to_refuse(middleware: steer.SteerMiddleware) -> None:
    status, _, header = ask(middleware, b"")
    assert (status, header) == (200, "base")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Iterator[str]:
    """A real server of two variants of SmolLM2; gives the URL up to /v1."""
    import socket

    folder = tmp_path_factory.mktemp("serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "engine.commands.serve", "--variant=smollm2_135m_k1", "--variant=smollm2_135m_k3"]
    command += ["--steerable", f"--port={port}", "--set=data.num_pairs=32", "--", "--kv-cache-memory-bytes", "500000000"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        try:
            wait_until_healthy(process, f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)
            print((folder / "log").read_text()[-3000:])


EIGHT = [
    ("base", {}),
    ("smollm2_135m_k1", {}),
    ("smollm2_135m_k3", {}),
    ("base", {"variant": "smollm2_135m_k1", "alpha": 0.5}),
    ("base", {"variant": "smollm2_135m_k1", "alpha": 1.5}),
    ("base", {"variant": "smollm2_135m_k1", "site": "inputs"}),
    ("base", {"variant": "smollm2_135m_k1", "add": 3.0, "site": "block:12"}),
    ("base", {"variant": "smollm2_135m_k3", "alpha": 0.3}),
]


def answered(url: str, model: str, more: dict[str, Any]) -> str:
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)
    messages: Any = [{"role": "user", "content": "Could you turn off the alarm on my phone?"}]
    found = client.chat.completions.create(model=model, messages=messages, max_tokens=12, temperature=0, extra_body=more)
    return str(found.choices[0].message.content)


@pytest.mark.slow
@pytest.mark.engine
def test_eight_clients_of_eight_variants_get_each_its_own(server: str) -> None:
    alone = [answered(server, *each) for each in EIGHT]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda each: answered(server, *each), EIGHT * 2))
    for (model, more), text in zip(EIGHT, alone, strict=True):
        print(model, more, repr(text))
    assert together == alone * 2
    assert len(set(alone)) >= 4


@pytest.mark.slow
@pytest.mark.engine
def test_a_request_that_cannot_be_done_fails_alone(server: str) -> None:
    with pytest.raises(openai.BadRequestError, match="There is no variant 'k9'"):
        answered(server, "base", {"variant": "k9"})
    assert answered(server, "base", {})
