"""A chat completion's body read into a Reply, or into the Fault that says what came in its place.

Endpoints agree on little. The text may come whole, in typed chunks, or beside its reasoning; counts may be missing. What is
not known is None here, and never 0.
"""

import json
from dataclasses import dataclass
from typing import Any

from judging.errors import Fault
from judging.problems import clean, is_page, is_stream, of_error, parsed, said_by_page, words_of
from judging.replies import shortened, storable

MOST_TOKENS = 10**9  # a larger count is none
REASONING = ("reasoning_content", "reasoning", "reasoning_text")
TEXT_CHUNKS = (None, "text", "output_text")


@dataclass(frozen=True)
class Reply:
    """An endpoint's reply.

    model: the model that answered, by the endpoint's own word; None where it names none.
    prompt_tokens, completion_tokens: None where the endpoint did not count.
    cached_tokens: of the prompt's; 0 where none is named.
    """

    content: str
    latency_ms: float
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int
    model: str | None = None

    @property
    def is_counted(self) -> bool:
        """True where both counts are known, so that a cost is."""
        return self.prompt_tokens is not None and self.completion_tokens is not None


class BilledFault(Fault):
    """A fault of a reply that did come, so its tokens are paid for."""

    def __init__(self, fault: Fault, reply: Reply) -> None:
        super().__init__(fault.kind, str(fault), retry_after=fault.retry_after, raw_reply=fault.raw_reply, fields=fault.fields)
        self.reply = reply


def read_completion(body: str, latency_ms: float) -> Reply:
    """The reply in a response's body. Raises Fault where there is none, BilledFault where it holds no answer."""
    data = parsed(body)
    choice = _first_choice(data)
    if choice is None:
        raise not_a_completion(body, data)
    message = choice["message"]
    reply = _reply_of(data, _text_of(message.get("content")), latency_ms)
    if fault := _no_answer(choice, reply, _reasoning_tokens(data)):
        raise BilledFault(fault, reply)
    return reply


def not_a_completion(body: str, data: Any) -> Fault:
    """The fault of a body that is no chat completion: an error with its status, a stream, a web page, or neither."""
    if is_stream(body):
        return Fault("page", "the reply is a stream, which was not asked for", raw_reply=shortened(storable(body)))
    if is_page(body):
        return Fault("page", f"the reply is {said_by_page(body)}, not a chat completion", raw_reply=shortened(storable(body)))
    if isinstance(data, dict) and data.get("error"):
        return of_error(data["error"], body)
    if isinstance(data, list | dict) and words_of(data):
        return of_error(data, body)
    return Fault("passing", "the body is not a chat completion", raw_reply=shortened(storable(body)))


def _first_choice(data: Any) -> dict[str, Any] | None:
    choices = data.get("choices") if isinstance(data, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) and isinstance(first.get("message"), dict) else None


def _reply_of(data: dict[str, Any], content: str, latency_ms: float) -> Reply:
    usage = _table(data, "usage")
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    cached = _count(_table(usage, "prompt_tokens_details").get("cached_tokens")) or _count(usage.get("prompt_cache_hit_tokens"))
    model = data.get("model")
    named = clean(model) if isinstance(model, str) else None
    return Reply(storable(content), latency_ms, prompt, completion, min(cached or 0, prompt or 0), named or None)


def _text_of(content: Any) -> str:
    """The text of a message: as it is, or the text chunks of a list, joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (chunk.get("text") if isinstance(chunk, dict) and chunk.get("type") in TEXT_CHUNKS else chunk for chunk in content)
    return "".join(text for text in texts if isinstance(text, str))


def _reasoning_of(message: dict[str, Any]) -> tuple[str, str] | None:
    """The field that holds reasoning apart from the answer, and its text."""
    return next(((name, message[name]) for name in REASONING if isinstance(message.get(name), str) and message[name]), None)


def _reasoning_tokens(data: dict[str, Any]) -> int:
    return _count(_table(_table(data, "usage"), "completion_tokens_details").get("reasoning_tokens")) or 0


def _no_answer(choice: dict[str, Any], reply: Reply, reasoning_tokens: int) -> Fault | None:
    """Why a message holds no answer; None where it may."""
    message, finish = choice["message"], choice.get("finish_reason")
    reasoning = _reasoning_of(message)
    kept = shortened(storable(reply.content or (reasoning[1] if reasoning else "") or _dumped(message.get("content")))) or None
    if choice.get("error") or finish == "error":
        return of_error(choice.get("error") or "the endpoint ended the answer with an error", _dumped(choice))
    if finish == "content_filter":
        return Fault("refused", "the endpoint's content filter stopped the answer", raw_reply=kept)
    if refusal := message.get("refusal"):
        return Fault("unusable", "the judge refused to judge", raw_reply=shortened(storable(str(refusal))))
    if finish == "length":
        thinking = reasoning_tokens or reasoning or reply.content.lstrip().startswith("<think")
        where = f" while reasoning{f' ({reasoning_tokens} tokens of it)' if reasoning_tokens else ''}" if thinking else ""
        return Fault("unusable", f"the answer was cut at max_tokens{where}", raw_reply=kept)
    return None if reply.content.strip() else Fault("unusable", _why_empty(message, reasoning), raw_reply=kept)


def _why_empty(message: dict[str, Any], reasoning: tuple[str, str] | None) -> str:
    if reasoning is not None:
        return f"the answer is empty, its text is in {reasoning[0]}: reasoning in place of the verdict"
    content = message.get("content")
    if content is None or isinstance(content, str):
        return "the answer is empty"
    return f"content is a {type(content).__name__} without a text"


def _dumped(content: Any) -> str:
    return "" if content is None or isinstance(content, str) else json.dumps(content, default=str)


def _table(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None
