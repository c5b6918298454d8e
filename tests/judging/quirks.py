"""The quirks of endpoints, each with whose it is, what it sends, and what must come of it: the table in judging/README.md."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.judging.imitation import Body, Quirk, completion, error, openai_error, plain, refuses, verdict_in

Make = Callable[[web.Request, Body], web.Response]


@dataclass(frozen=True)
class Case:
    """One quirk. `says`: what must be in the rows' error, in the JudgeError, or in what is said once where rows are scored.

    outcome: scored (every row), missing (none, and the job ends by itself) or stops (a JudgeError).
    """

    name: str
    whose: str
    outcome: str
    says: str
    quirk: Quirk
    options: dict[str, Any] = field(default_factory=dict)


def text(content: Callable[[str], Any], **more: Any) -> Make:
    """A quirk whose content is made of the verdict."""
    return lambda request, body: plain(body, content(verdict_in(body)), **more)


def page(status: int) -> Make:
    return lambda request, body: web.Response(
        status=status, text="<!DOCTYPE html><html><title>Bad gateway</title>" + "<p>x</p>" * 2000, content_type="text/html"
    )


def always(status: int, body: Any, **headers: str) -> Make:
    return lambda request, sent: error(status, body, **headers)


def stream(request: web.Request, body: Body) -> web.Response:
    chunk = json.dumps({"choices": [{"delta": {"content": verdict_in(body)}}]})
    return web.Response(text=f"data: {chunk}\n\ndata: [DONE]\n\n", content_type="text/event-stream")


def without_system(request: web.Request, body: Body) -> web.Response | None:
    refused = openai_error("System role not supported")
    return error(400, refused) if body["messages"][0]["role"] == "system" else None


def only_under(path: str) -> Quirk:
    return lambda request, body: None if request.path == path else error(404, {"detail": "Not Found"})


UNSUPPORTED = openai_error(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    param="max_tokens",
    code="unsupported_parameter",
)
TEMPERATURE = openai_error("Unsupported value: 'temperature' does not support 0.0 with this model.", param="temperature")
EXTRA = {"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}]}
GEMINI = [openai_error('Invalid JSON payload received. Unknown name "response_format": Cannot find field.')]
LMSTUDIO = {"error": "'response_format.type' must be 'json_schema' or 'text'"}
NO_CREDIT = {"error": {"message": "Insufficient credits", "code": 402}}
FLAGGED = {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "the model is overloaded"}}}
LOADED = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
REASONED = {"content": None, "reasoning_content": "The response answers."}
LONG = {"completion_tokens_details": {"reasoning_tokens": 256}, "prompt_tokens": 800, "completion_tokens": 256}
LEFT_OUT = "is left out from now on: the endpoint refuses it"

CASES = [
    # Fields that are refused
    Case("no `json_schema`", "DeepSeek", "scored", f"response_format {LEFT_OUT}",
         refuses("response_format", 400, openai_error("This response_format type is unavailable now"))),
    Case("`json_object` refused, the error a bare string", "LM Studio", "scored", LEFT_OUT,
         refuses("response_format", 400, LMSTUDIO), {"structured": "json_object"}),
    Case("the error in a list", "Gemini", "scored", LEFT_OUT, refuses("response_format", 400, GEMINI)),
    Case("no temperature", "OpenAI's o-series", "scored", f"temperature {LEFT_OUT}", refuses("temperature", 400, TEMPERATURE)),
    Case("no temperature, `temperature = \"unset\"`", "OpenAI's o-series", "scored", "",
         refuses("temperature", 400, TEMPERATURE), {"temperature": "unset"}),
    Case("`max_tokens` under its other name", "OpenAI's newer models", "scored", f"max_tokens {LEFT_OUT}",
         refuses("max_tokens", 400, UNSUPPORTED)),
    Case("an unknown field, FastAPI's `detail` list", "TGI, Mistral", "scored", "body.temperature: Extra inputs",
         refuses("temperature", 422, EXTRA)),
    Case("no system role", "Gemma's template, o1-preview", "stops", "merge_system = true", without_system),
    Case("no system role, `merge_system = true`", "Gemma's template", "scored", "", without_system, {"merge_system": True}),
    Case("every request refused", "a proxy", "stops", "nothing is right.*base_url",
         always(400, openai_error("nothing is right"))),
    # Replies
    Case("closed `<think>` before the verdict", "vLLM without a reasoning parser", "scored", "",
         text(lambda verdict: f"<think>It answers.</think>\n\n{verdict}")),
    Case("the template opens `<think>`", "DeepSeek-R1 on vLLM", "scored", "",
         text(lambda verdict: f"It answers.</think>{verdict}")),
    Case("`<think>` that never ends", "reasoning models", "missing", "reasoning before the verdict that never ends",
         text(lambda verdict: f"<think>{verdict}")),
    Case("all text in `reasoning_content`", "vLLM with a reasoning parser", "missing", "its text is in reasoning_content",
         lambda request, body: plain(body, message=REASONED)),
    Case("content as typed chunks", "Mistral", "scored", "",
         text(lambda verdict: [{"type": "thinking", "thinking": []}, {"type": "text", "text": verdict}])),
    Case("chunks without a text", "Mistral", "missing", "content is a list without a text",
         text(lambda verdict: [{"type": "image_url", "image_url": "x"}])),
    Case("fence in capitals", "Llama, Qwen", "scored", "", text(lambda verdict: f"```JSON\n{verdict}\n```")),
    Case("fence on one line", "Llama, Qwen", "scored", "", text(lambda verdict: f"```json{verdict}```")),
    Case("a sentence before the fence", "any", "missing", "text before the verdict",
         text(lambda verdict: f"It answers.\n```json\n{verdict}\n```")),
    Case("cut at max_tokens while reasoning", "o-series, R1", "missing", r"cut at max_tokens while reasoning \(256",
         lambda request, body: plain(body, "", finish="length", usage=LONG)),
    Case("no usage", "Ollama, proxies", "scored", "does not count all tokens", lambda request, body: plain(body, usage=None)),
    Case("half of usage", "proxies", "scored", "does not count all tokens",
         lambda request, body: plain(body, usage={"prompt_tokens": 800})),
    Case("counts that are absurd", "hostile", "scored", "does not count all tokens",
         lambda request, body: plain(body, usage={"prompt_tokens": 10**30, "completion_tokens": -1})),
    Case("the prompt cut to the window", "Ollama", "scored", "it may have cut the question",
         lambda request, body: plain(body, usage={"prompt_tokens": 40, "completion_tokens": 30})),
    Case("another model answers", "LM Studio, llama.cpp, OpenRouter", "scored", "'other-7b' answered",
         lambda request, body: plain(body, model="other-7b")),
    # Errors
    Case("402 inside a 200", "OpenRouter", "stops", "the account has no credit: HTTP 200 with error 402: Insufficient credits",
         always(200, NO_CREDIT)),
    Case("502 inside a 200", "OpenRouter", "missing", "HTTP 200 with error 502: Provider returned error.*overloaded",
         always(200, FLAGGED)),
    Case("an error inside the choice", "OpenRouter", "missing", "error 502: Provider disconnected",
         lambda request, body: plain(body, "", finish="error", choices=[{
             "message": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "Provider disconnected"}}])),
    Case("400 that is a filtered completion", "gateways", "stops", "the endpoint's content filter stopped the answer",
         lambda request, body: error(400, completion(body, "", finish="content_filter"))),
    Case("502 with a web page", "Cloudflare", "missing", r"HTTP 502: a web page \('Bad gateway'\)$", page(502)),
    Case("200 with a web page", "a wrong address", "stops", r"a web page \('Bad gateway'\), not.*base_url",
         page(200)),
    Case("a stream that was not asked for", "proxies", "stops", "the reply is a stream, which was not asked for", stream),
    Case("429, Retry-After 3600", "daily limits", "stops", r"it asks for a pause of 60 min.*deadline_s",
         always(429, openai_error("Rate limit"), **{"Retry-After": "3600"})),
    Case("the key sent back with terminal escapes", "hostile", "stops", r"no \]0;x key",
         always(401, openai_error("no \x1b]0;x\x07 key"))),
]  # fmt: skip
