"""The network's edges: redirects, bodies without end, certificates, addresses, headers, and servers that are still loading."""

import asyncio
import gzip
import json
import resource
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from judging.endpoint import Endpoint
from judging.errors import Fault, JudgeError
from judging.network import complete, open_client
from judging.problems import of_error, of_status
from judging.request import arguments
from judging.rubric import Rubric
from tests.judging.chaos import KEY
from tests.judging.imitation import Imitation, Quirk, error, openai_error, plain, refuses
from tests.judging.test_endpoints_as_they_are import judged

RUBRIC = Rubric()


def ask(base_url: str, *, timeout_s: float = 5.0, **options: Any) -> Any:
    """One call's reply, or the fault it raises."""
    endpoint = Endpoint.model_validate({"base_url": base_url, "model": "judge", **options})

    async def go() -> Any:
        client = open_client(endpoint, SecretStr(KEY), 4)
        try:
            return await complete(client, arguments(endpoint, RUBRIC, RUBRIC.messages(RUBRIC.probe)), timeout_s)
        except Fault as fault:
            return fault
        finally:
            await client.close()

    return asyncio.run(go())


def moved(status: int, target: str) -> Quirk:
    return lambda request, body: web.Response(status=status, headers={"Location": target}) if request.path != "/new" else None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_gets_neither_key_nor_prompts(status: int) -> None:
    with Imitation(lambda request, body: None) as other, Imitation(moved(status, f"{other.url}/new")) as server:
        fault = ask(server.url)
        assert str(fault).startswith(f"HTTP {status}: a redirect to {other.url}/new, which is not followed")
        assert fault.kind == "barred"
        assert other.headers == []


@pytest.mark.parametrize(("status", "followed"), [(301, False), (302, False), (307, True), (308, True)])
def test_a_redirect_on_the_same_host_is_followed_where_it_keeps_the_body(status: int, followed: bool) -> None:
    with Imitation(moved(status, "/new")) as server:
        reply = ask(server.url)
        assert isinstance(reply, Fault) is not followed
        assert server.paths[-1] == ("/new" if followed else "/v1/chat/completions")


def test_a_redirect_stops_the_job_with_the_setting_to_change(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"HTTP 301: a redirect to https://new\.example/v1/chat.*as base_url"):
        judged(moved(301, "https://new.example/v1/chat/completions?token=x"), tmp_path)


def bomb(status: int) -> Quirk:
    packed = gzip.compress(b" " * 2**28)
    return lambda request, body: web.Response(status=status, body=packed, headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize("status", [200, 500])
def test_a_gzip_bomb_is_not_unpacked(status: int) -> None:
    with Imitation(bomb(status)) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        fault = ask(server.url)
        taken, grown = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{taken:.2f} s, {grown / 1024:.0f} MiB for 256 MiB unpacked")
        assert str(fault) == "the body is longer than 4 MiB; the rest was not read"
        assert grown < 64 * 1024


async def endless(request: web.Request, body: Any) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        while True:
            await response.write(b" " * 2**16)
    except ConnectionError:
        return response


def test_a_body_without_end_is_read_up_to_the_limit() -> None:
    with Imitation(endless) as server:
        assert str(ask(server.url)) == "the body is longer than 4 MiB; the rest was not read"


def test_a_gzip_reply_is_read() -> None:
    def packed(request: web.Request, body: Any) -> web.Response:
        return web.Response(body=gzip.compress(plain(body).body), headers={"Content-Encoding": "gzip"})  # type: ignore[arg-type]

    with Imitation(packed) as server:
        assert ask(server.url).prompt_tokens == 800


@pytest.mark.parametrize("written", ["", "/", "/chat/completions", "/chat/completions/"])
def test_base_url_may_end_in_the_route(written: str) -> None:
    with Imitation(lambda request, body: None) as server:
        assert ask(server.url + written).prompt_tokens == 800
        assert server.paths == ["/v1/chat/completions"]


def test_a_query_in_base_url_stays_a_query() -> None:
    with Imitation(lambda request, body: None) as server:
        base = server.url.removesuffix("/v1") + "/openai/deployments/d?api-version=2024-10-21"
        assert ask(base, key_header="api-key").prompt_tokens == 800
        assert server.paths == ["/openai/deployments/d/chat/completions?api-version=2024-10-21"]


def test_azures_key_travels_in_its_own_header_alone() -> None:
    with Imitation(lambda request, body: None) as server:
        ask(server.url, key_header="api-key", query={"api-version": "v1"}, headers={"X-Title": "study"})
        [headers] = server.headers
        assert headers["api-key"] == KEY
        assert "Authorization" not in headers
        assert {name.lower(): value for name, value in headers.items()}["x-title"] == "study"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"headers": {"Authorization": "Bearer x"}}, "would put a key into files"),
        ({"headers": {"x-api-key": "x"}}, "would put a key into files"),
        ({"base_url": "http://h/v1?key=abc"}, "would put a key into files"),
        ({"extra_body": {"max_tokens": 4096}}, "its setting is max_tokens"),
        ({"extra_body": {"model": "m"}}, "its setting is model"),
        ({"temperature": "none"}, "valid number"),
        ({"temperature": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_would_hide_a_key_or_a_cost_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Endpoint.model_validate({"base_url": "http://h/v1", "model": "judge", **options})


def test_what_came_later_does_not_change_the_address_of_earlier_answers() -> None:
    names = {"base_url", "model", "structured", "temperature", "max_tokens", "extra_body"}
    assert set(Endpoint(base_url="http://h/v1", model="m").sampling) == names
    assert Endpoint(base_url="http://h/v1", model="m", merge_system=True).sampling["merge_system"] is True


def test_an_address_without_v1_is_told_so(tmp_path: Path) -> None:
    def no_such(request: web.Request, body: Any) -> web.Response:
        return error(404, {"detail": "Not Found"})

    with Imitation(no_such) as server:
        base = server.url.removesuffix("/v1")
        with pytest.raises(JudgeError, match=rf'asked was {base}/chat/completions.*try base_url = "{base}/v1"'):
            judged_at(base, tmp_path)


def judged_at(base_url: str, folder: Path, **options: Any) -> None:
    """A judging job of one item at an address."""
    from judging.crew import LocalCrew
    from judging.remote import Asker

    endpoint = Endpoint.model_validate({"base_url": base_url, "model": "judge", "timeout_s": 5, **options})
    asker = Asker(endpoint, RUBRIC, folder / "cache.sqlite", [lambda proven: LocalCrew(endpoint, RUBRIC, None, proven=proven)])
    try:
        asker.ask([RUBRIC.probe])
        asker.drain()
    finally:
        asker.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of one's own for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *name]
    subprocess.run(line, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


class Tls(Imitation):
    """An imitation behind TLS."""

    def __init__(self, certificate: tuple[Path, Path]) -> None:
        super().__init__(lambda request, body: None)
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.load_cert_chain(*certificate)


def test_a_certificate_of_ones_own_is_trusted_by_ca_file(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    with Tls(certificate) as server:
        assert ask(server.url, ca_file=str(certificate[0])).prompt_tokens == 800
        with pytest.raises(JudgeError, match=r"(?i)certificate.*ca_file"):
            judged_at(server.url, tmp_path)


def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(JudgeError, match=r"ca_file .*ca\.pem cannot be read"):
        Endpoint(base_url="https://h/v1", model="m", ca_file=str(tmp_path / "ca.pem")).ssl_context()


def test_retry_after_may_be_an_http_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    fault = of_status(429, "{}", {"retry-after": date})
    assert fault.retry_after == pytest.approx(90, abs=3)


def test_a_server_that_is_loading_is_waited_for(tmp_path: Path) -> None:
    started = time.monotonic()

    def loading(request: web.Request, body: Any) -> web.Response | None:
        loads = time.monotonic() - started < 3
        return error(503, {"error": {"code": 503, "message": "Loading model"}}) if loads else None

    found, said, _ = judged(loading, tmp_path, deadline_s=2.0, max_attempts=1)
    assert all(one.error is None for one in found)
    assert len([line for line in said if "the server was loading, and was waited for" in line]) == 1


def test_a_server_that_never_finishes_loading_stops_the_job(tmp_path: Path) -> None:
    def loading(request: web.Request, body: Any) -> web.Response:
        return error(503, {"error": {"message": "Loading model"}})

    with pytest.raises(JudgeError, match=r"still loading after 0\.5 s \(loading_s\).*raise endpoint\.loading_s"):
        judged(loading, tmp_path, loading_s=0.5)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([{"error": {"message": "Unknown name"}}], "HTTP 418: Unknown name"),
        ({"detail": [{"loc": ["body", 0], "msg": "extra"}]}, "HTTP 418: body.0: extra"),
        ({"detail": "plain"}, "HTTP 418: plain"),
        ({"error": "a string"}, "HTTP 418: a string"),
        ({"error": {"message": "outer", "metadata": {"raw": "inner"}}}, "HTTP 418: outer (inner)"),
        ({"object": "error", "message": "old vLLM"}, "HTTP 418: old vLLM"),
        ({"errors": [{"detail": "listed"}]}, "HTTP 418: listed"),
        ({"odd": 1}, 'HTTP 418: {"odd": 1}'),
        (openai_error("a\x1b[31mred\nline"), "HTTP 418: a [31mred line"),
    ],
)
def test_an_endpoints_words_are_found_wherever_they_are(body: Any, said: str) -> None:
    assert str(of_status(418, json.dumps(body), {})) == said


def test_the_field_that_was_sent_is_left_out_though_words_name_the_other_first(tmp_path: Path) -> None:
    words = openai_error("Use 'max_completion_tokens', since 'max_tokens' is not supported.")
    found, said, _ = judged(refuses("max_tokens", 400, words), tmp_path)
    assert all(one.error is None for one in found)
    assert said[0].startswith("judge judge: max_tokens is left out from now on")


def test_an_endpoint_that_knows_neither_name_of_the_limit_is_not_asked_without_one(tmp_path: Path) -> None:
    def neither(request: web.Request, body: Any) -> web.Response | None:
        name = next((name for name in ("max_tokens", "max_completion_tokens") if name in body), None)
        return error(400, openai_error(f"'{name}' is not supported", param=name)) if name else None

    with pytest.raises(JudgeError, match="max_tokens_field"):
        judged(neither, tmp_path)


def test_a_context_that_is_too_long_does_not_leave_out_the_token_limit() -> None:
    words = "This model's maximum context length is 8192 tokens; 256 in max_tokens is not supported"
    assert of_status(400, json.dumps(openai_error(words, param="max_tokens")), {}).fields == ()


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ({"message": "Insufficient credits", "code": 402}, "fatal"),
        ({"message": "Rate limit exceeded", "code": 429}, "busy"),
        ({"message": "Rate limit exceeded", "type": "rate_limit_exceeded"}, "busy"),
        ({"message": "You exceeded your quota", "code": "insufficient_quota"}, "fatal"),
        ({"message": "Bad gateway", "code": "502"}, "passing"),
        ({"message": "Loading model", "code": 503}, "loading"),
        ({"message": "flagged", "code": 403}, "barred"),
        ({"message": "no such field", "type": "invalid_request_error"}, "refused"),
        ({"message": "something"}, "passing"),
        ("a bare string", "passing"),
    ],
)
def test_an_error_inside_a_200_is_treated_as_the_status_it_names(found: Any, kind: str) -> None:
    assert of_error(found, "{}").kind == kind
