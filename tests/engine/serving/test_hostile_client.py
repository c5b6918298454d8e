"""The real bin/serve under a client without the key that keeps to no rule: what each route answers, and who gets through.

The routes are those that vLLM's own log lists at its start. `bin/test tests/engine/serving/test_hostile_client.py -m slow -s`
prints them, each with its answers.
"""

import json
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import psutil
import pytest

from engine.serving.guard import ADMIN_ROUTE
from tests.engine.serving.test_server import ASK, KEY, admin, serve

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.usefixtures("smollm2_dir")]
ADMIN_KEY = "the admin's key of the test"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# Routes of vLLM's that other flags open, of other servers, and near the three that stand open.
FOREIGN = (
    *("/collective_rpc", "/sleep", "/wake_up", "/is_sleeping", "/server_info", "/reset_prefix_cache", "/reset_mm_cache"),
    *("/pause", "/resume", "/update_weights", "/init_weight_transfer_engine", "/start_profile", "/stop_profile"),
    *("/abort_requests", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/admin", "/admin/", "/admin/variant/"),
    *("/health/", "/ping/", "/healthz", "/static/", "/.env", "/api/generate", "/"),
)
SHOWN = (b"swappable", b"choices", b"smollm2", b"vllm:", b"openapi", b"tokens")  # what no stranger is to read
LARGE = 200 * 2**20


@dataclass(frozen=True)
class Served:
    url: str
    port: int
    process: psutil.Process
    log: Path

    @property
    def memory(self) -> int:
        """Resident bytes of the process that speaks HTTP."""
        return int(self.process.memory_info().rss)

    def listed(self) -> dict[str, set[str]]:
        """Each route that vLLM says it has, with its methods."""
        found = re.findall(r"Route: (\S+), Methods: ([A-Z, ]+)", self.log.read_text())
        return {path.replace("{model}", "m"): set(methods.split(", ")) for path, methods in found}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFUSAL_ADMIN_KEY", ADMIN_KEY)
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        patch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
        with serve(tmp_path_factory.mktemp("served"), "--variant", "smollm2_135m_k1", "--swappable") as (server, url, log):
            yield Served(url, int(url.split(":")[2].split("/")[0]), psutil.Process(server.pid), log)
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def answer(port: int, data: bytes, *, quiet_s: float = 3.0) -> bytes:
    """What a server says to these bytes, until it hangs up or says nothing more."""
    with connect(port) as line:
        line.settimeout(quiet_s)
        said = b""
        try:
            line.sendall(data)
            while part := line.recv(2**16):
                said += part
        except (TimeoutError, ConnectionError):
            pass
        return said


def statuses(said: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"HTTP/1\.[01] (\d{3})", said)]


def head(method: str, path: str, *fields: str, host: str = "localhost") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


def asked(served: Served, method: str, path: str, *fields: str) -> tuple[int, bytes]:
    """The status of one request, and all that was said."""
    said = answer(served.port, head(method, path, "Connection: close", "Content-Length: 2", *fields) + b"{}")
    (status,) = statuses(said)
    return status, said


def works(served: Served) -> bool:
    """Whether somebody with the key gets a response."""
    client = openai.OpenAI(base_url=served.url, api_key=KEY, max_retries=0, timeout=60)
    return bool(client.chat.completions.create(model="swappable", messages=ASK, max_tokens=4).choices[0].message.content)


def test_each_route_answers_a_stranger_with_401_but_a_look_at_health(served: Served) -> None:
    routes = served.listed()
    assert {"/invocations", "/tokenize", "/v1/chat/completions", "/health", "/ping", "/metrics", "/openapi.json"} <= set(routes)
    found = {path: {method: asked(served, method, path)[0] for method in METHODS} for path in [*routes, *FOREIGN]}
    for path, by_method in found.items():
        print(f"{path:40}", " ".join(f"{method} {status}" for method, status in by_method.items()), file=sys.stderr)
    opened = {(path, method) for path, each in found.items() for method, status in each.items() if status == 200}
    assert opened == {("/health", "GET"), ("/ping", "GET"), ("/ping", "POST")}
    closed = [path for path in found if path not in ("/health", "/ping")]
    assert {status for path in closed for status in found[path].values()} == {401}


def test_a_browsers_question_reaches_no_route(served: Served) -> None:
    fields = ("Origin: http://evil.example", "Access-Control-Request-Method: GET")
    for path in ("/metrics", "/v1/models", "/invocations"):
        status, said = asked(served, "OPTIONS", path, *fields)
        assert status in (200, 400)
        assert not any(word in said.partition(b"\r\n\r\n")[2] for word in SHOWN)


def test_the_routes_that_a_shell_would_open_are_not_there(served: Served) -> None:
    foreign = [path for path in FOREIGN if path not in ("/health/", "/ping/", "/admin/variant/", "/static/")]
    found = {path: asked(served, "POST", path, f"Authorization: Bearer {KEY}")[0] for path in foreign}
    assert set(found.values()) == {404}, found


def test_the_admins_route_takes_the_admins_key_and_no_proxys_client(served: Served) -> None:
    assert asked(served, "GET", ADMIN_ROUTE)[0] == 401
    assert asked(served, "GET", ADMIN_ROUTE, f"Authorization: Bearer {KEY}")[0] == 401
    assert asked(served, "GET", ADMIN_ROUTE, f"Authorization: Bearer {ADMIN_KEY}")[0] == 200
    assert asked(served, "GET", ADMIN_ROUTE, f"Authorization: Bearer {ADMIN_KEY}", "X-Forwarded-For: 203.0.113.9")[0] == 403


SPELLINGS = (
    "//v1/models",
    "/v1//models",
    "/./v1/models",
    "/health/../v1/models",
    "/health/%2e%2e/v1/models",
    "/health%2f..%2fv1/models",
    "/health;/v1/models",
    "/health%00/v1/models",
    "/health%0d%0a/v1/models",
    "/HEALTH",
    "/%76%31/models",
    "/v1/models?path=/health",
    "/v1/models#/health",
    "http://localhost/v1/models",
    "http://localhost/health/../v1/models",
    "\\v1\\models",
    "*",
)


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_gets_past_the_key(served: Served, path: str) -> None:
    said = answer(served.port, head("GET", path, "Connection: close"))
    assert set(statuses(said)) <= {400, 401, 404}
    assert not any(word in said for word in SHOWN)


HIDDEN = head("GET", "/v1/models")
SMUGGLED = {
    "length and chunks": head("POST", "/ping", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + HIDDEN,
    "chunks and length": head("POST", "/ping", "Transfer-Encoding: chunked", f"Content-Length: {5 + len(HIDDEN)}")
    + b"0\r\n\r\n"
    + HIDDEN,
    "two lengths": head("POST", "/ping", "Content-Length: 0", f"Content-Length: {len(HIDDEN)}") + HIDDEN,
    "a list of lengths": head("POST", "/ping", f"Content-Length: 0, {len(HIDDEN)}") + HIDDEN,
    "a length with a sign": head("POST", "/ping", "Content-Length: +0") + HIDDEN,
    "a negative length": head("POST", "/ping", "Content-Length: -1") + HIDDEN,
    "a length beyond 64 bits": head("POST", "/ping", "Content-Length: 99999999999999999999") + HIDDEN,
    "an unknown coding": head("POST", "/ping", "Transfer-Encoding: xchunked") + b"0\r\n\r\n" + HIDDEN,
    "chunked is not last": head("POST", "/ping", "Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + HIDDEN,
    "a chunk's size in hex with 0x": head("POST", "/ping", "Transfer-Encoding: chunked") + b"0x0\r\n\r\n" + HIDDEN,
    "a chunk beyond 64 bits": head("POST", "/ping", "Transfer-Encoding: chunked") + b"fffffffffffffffff\r\n" + HIDDEN,
    "a space before the colon": head("POST", "/ping", "Content-Length : 0") + HIDDEN,
    "a folded field": head("POST", "/ping", "Content-Length:", " 0") + HIDDEN,
    "bare line feeds": b"GET /ping HTTP/1.1\nHost: localhost\n\n" + HIDDEN,
    "a zero byte in a field": head("GET", "/ping", "X: a\0b") + HIDDEN,
    "no host": b"GET /ping HTTP/1.1\r\n\r\n" + HIDDEN,
    "two hosts": head("GET", "/ping", "Host: evil.example") + HIDDEN,
    "another host": head("GET", "/ping", host="evil.example") + HIDDEN,
    "a body where none is expected": head("GET", "/health", f"Content-Length: {len(HIDDEN)}") + HIDDEN,
    "one after another": head("GET", "/health") + HIDDEN,
    "an upgrade to HTTP/2": head("GET", "/health", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A")
    + HIDDEN,
    "a websocket": head(
        "GET",
        "/v1/realtime",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ),
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/1.0 with chunks": b"POST /ping HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "a tunnel": head("CONNECT", "localhost:22") + HIDDEN,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    "a key without a scheme": head("GET", "/v1/models", f"Authorization: {KEY}"),
    "a key in another scheme": head("GET", "/v1/models", f"Authorization: Basic {KEY}"),
    "a key in the address": head("GET", f"/v1/models?api_key={KEY}"),
    "a key that goes on": head("GET", "/v1/models", f"Authorization: Bearer {KEY} x"),
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_nothing_is_smuggled_past_the_key(served: Served, name: str) -> None:
    said = answer(served.port, SMUGGLED[name])
    print(f"{name:35} {statuses(said)}", file=sys.stderr)
    assert set(statuses(said)) <= {200, 400, 401, 403, 404, 405}
    assert not any(word in said for word in SHOWN)


def test_a_head_without_end_is_cut_off(served: Served) -> None:
    before, sent = served.memory, 0
    with connect(served.port) as line:
        line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        field = b"X: " + b"y" * 2**16 + b"\r\n"
        try:
            while sent < LARGE:
                sent += line.send(field)
        except ConnectionError:
            pass
    grown = served.memory - before
    print(f"{sent / 2**20:.1f} MiB of a head sent, {grown / 2**20:.0f} MiB held", file=sys.stderr)
    assert sent < LARGE
    assert grown < 32 * 2**20


def test_a_body_without_end_is_cut_off_with_the_key_too(served: Served) -> None:
    before, sent = served.memory, 0
    with connect(served.port) as line:
        line.sendall(head("POST", "/v1/completions", f"Authorization: Bearer {KEY}", "Transfer-Encoding: chunked"))
        piece = b"10000\r\n" + b"y" * 2**16 + b"\r\n"
        while sent < LARGE // 2:
            sent += line.send(piece)
        assert statuses(line.recv(2**16)) == [413]
    grown = served.memory - before
    print(f"{sent / 2**20:.0f} MiB of a body sent, {grown / 2**20:.0f} MiB held", file=sys.stderr)
    assert grown < 150 * 2**20


def test_a_thousand_idle_connections_and_half_bodies_hold_nobody_up(served: Served) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], min(4096, limit[1])), limit[1]))
    half = head("POST", "/v1/completions", f"Authorization: Bearer {KEY}", "Content-Length: 100") + b'{"model": '
    sends = {"nothing": b"", "half a head": b"GET /health HT", "half a body": head("POST", "/ping", "Content-Length: 9") + b"{"}
    before, begun = served.memory, time.monotonic()
    lines = [(connect(served.port), sends[name]) for name in sends for _ in range(334 if name == "nothing" else 333)]
    lines += [(connect(served.port), half) for _ in range(50)]
    try:
        for line, data in lines:
            line.sendall(data)
        print(f"{len(lines)} connections, {(served.memory - before) / 2**20:.0f} MiB held", file=sys.stderr)
        started = time.monotonic()
        assert works(served)
        status, state = admin(served.url, ADMIN_KEY, "smollm2_135m_k1")
        assert (status, state["variant"]) == (200, "smollm2_135m_k1")
        assert time.monotonic() - started < 15
        ended = [line for line, _ in lines if over(line, begun + 120)]
        print(f"{len(ended)} of {len(lines)} were ended, the last after {time.monotonic() - begun:.0f} s", file=sys.stderr)
        assert len(ended) == len(lines)
    finally:
        for line, _ in lines:
            line.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def over(line: socket.socket, deadline: float) -> bool:
    """Whether the server hangs up on a connection before the deadline."""
    try:
        while (left := deadline - time.monotonic()) > 0:
            line.settimeout(left)
            if not line.recv(2**16):
                return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return False


def test_the_server_is_whole_after_all_of_it(served: Served) -> None:
    assert works(served)
    assert json.dumps(admin(served.url, ADMIN_KEY)[1]["variant"]) != "null"
    assert served.process.num_fds() < 200
    assert "Traceback" not in served.log.read_text()
