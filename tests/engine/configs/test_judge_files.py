"""The judges' files that ship: each has the form of a judge, and is taken by a server with its endpoint's refusals."""

from pathlib import Path

import pytest

from engine.configs.judges import JUDGE_DIR, load_judge
from judging.endpoint import Endpoint
from tests.judging.imitation import Body, Imitation, Quirk, completion, error, openai_error, plain, web
from tests.judging.test_chaos import items_of
from tests.judging.test_endpoints_as_they_are import judge_of

NAMES = ["deepseek", "llamacpp", "lmstudio", "ollama", "openai", "openrouter", "tgi", "together", "vllm"]


def form_of(body: Body) -> str | None:
    return (body.get("response_format") or {}).get("type")


def knows_forms(*forms: str, status: int = 400, words: str = "response_format type is unavailable") -> Quirk:
    """An endpoint that refuses other forms of the answer than these."""
    return lambda request, body: error(status, openai_error(words)) if form_of(body) not in (*forms, None) else None


def openai(request: web.Request, body: Body) -> web.Response | None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    return error(400, openai_error(words, param="max_tokens")) if "max_tokens" in body else None


def openrouter(request: web.Request, body: Body) -> web.Response:
    """Needs the provider's setting, and answers under a dated name."""
    assert body["provider"] == {"require_parameters": True}
    return plain(body, model=f"{body['model']}-2025-04-14")


def deepseek(request: web.Request, body: Body) -> web.Response | None:
    """Has no JSON schema, and spends the tokens on reasoning where it is not told otherwise."""
    if body.get("thinking") != {"type": "disabled"}:
        return plain(body, "", finish="length", message={"reasoning_content": "Let me see."})
    return knows_forms("json_object")(request, body)  # type: ignore[return-value]


def tgi(request: web.Request, body: Body) -> web.Response | None:
    words = "Failed to deserialize the JSON body into the target type: response_format: missing field `value` at line 1"
    return web.Response(status=422, text=words) if form_of(body) else None


QUIRKS: dict[str, Quirk] = {
    "deepseek": deepseek,
    "openai": openai,
    "openrouter": openrouter,
    "together": knows_forms("json_object", words="response_format json_schema is not supported by this model"),
    "ollama": lambda request, body: web.json_response(completion(body, usage=None)),
    "lmstudio": knows_forms("json_schema", words="'response_format.type' must be 'json_schema' or 'text'"),
    "llamacpp": lambda request, body: plain(body, model="/models/judge.gguf"),
    "tgi": tgi,
    "vllm": lambda request, body: plain(body, message={"reasoning_content": None}),
}


def endpoint_of(name: str) -> Endpoint:
    file = load_judge(name)
    assert file is not None and file.endpoint is not None
    return file.endpoint


def test_every_endpoint_of_the_issue_has_a_file() -> None:
    found = [path.stem for path in sorted(JUDGE_DIR.glob("*.toml")) if "[endpoint]" in path.read_text("utf-8")]
    assert found == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_an_address_that_ends_in_v1(name: str) -> None:
    assert endpoint_of(name).base_url.endswith("/v1")


@pytest.mark.parametrize("name", NAMES)
def test_prices_stand_beside_the_day_they_were_read(name: str) -> None:
    endpoint = endpoint_of(name)
    assert not endpoint.prices or (endpoint.model in endpoint.prices and endpoint.price_note)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_taken_by_a_server_with_its_endpoints_refusals(name: str, tmp_path: Path) -> None:
    options = endpoint_of(name).model_dump(exclude={"base_url", "prices"})
    said: list[str] = []
    with Imitation(QUIRKS[name]) as server:
        judge = judge_of(server, tmp_path, said, **options)
        judge.ask(items_of(3))
        judge.drain()
        errors = [one.error for one in judge.grade(items_of(3))]
        judge.close()
    assert errors == [None] * 3
