"""One request as the openai client takes it, and the optional fields that an endpoint turned out to refuse.

    fields = Fields()
    request = fields.request(endpoint, rubric, messages)    # keyword arguments of chat.completions.create
    fields.learn(request, fault)                            # the field that asking again goes without, if that can help

Endpoints refuse what they do not know: a schema, a temperature, a name for the token limit. Each field is dropped at its
first refusal, if no call came through with it before.
"""

from collections.abc import Set as AbstractSet
from typing import Any

from judging.endpoint import Endpoint
from judging.errors import Fault
from judging.judge import Hooks, Message

OTHER_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


def arguments(
    endpoint: Endpoint, hooks: Hooks, messages: list[Message], left_out: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """Keyword arguments of one request, for the openai client, without the fields that are left out."""
    body: dict[str, Any] = dict(endpoint.extra_body)
    limit = endpoint.max_tokens_field
    request: dict[str, Any] = {
        "model": endpoint.model,
        "messages": merged(messages) if endpoint.merge_system else messages,
        OTHER_LIMIT[limit] if limit in left_out else limit: endpoint.max_tokens,
    }
    if endpoint.temperature is not None and "temperature" not in left_out:
        request["temperature"] = endpoint.temperature
    if (form := _response_format(endpoint, hooks)) is not None and "response_format" not in left_out:
        request["response_format"] = form
    if endpoint.structured == "choice" and "structured_outputs" not in left_out:
        body["structured_outputs"] = {"choice": hooks.choices}
    if "seed" in left_out:
        body.pop("seed", None)
    return request | ({"extra_body": body} if body else {})


def _response_format(endpoint: Endpoint, hooks: Hooks) -> dict[str, Any] | None:
    if endpoint.structured == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": hooks.name, "strict": True, "schema": hooks.schema}}
    return {"type": "json_object"} if endpoint.structured == "json_object" else None


def merged(messages: list[Message]) -> list[Message]:
    """One user message that holds all of them, for models without a system role."""
    return [{"role": "user", "content": "\n\n".join(message["content"] for message in messages)}]


class Fields:
    """What one endpoint takes of the optional fields, as far as its answers have told.

    left_out: fields that it refused, which no later request has.
    """

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        self._taken: set[str] = set()

    def request(self, endpoint: Endpoint, hooks: Hooks, messages: list[Message]) -> dict[str, Any]:
        """Keyword arguments of one request, without what the endpoint refused."""
        return arguments(endpoint, hooks, messages, self.left_out)

    def took(self, request: dict[str, Any]) -> None:
        """Note that a request came through: a later refusal that names one of its fields is about that call."""
        self._taken |= names_of(request)

    def learn(self, request: dict[str, Any], fault: Fault) -> str | None:
        """Leave out the field of a request that a refusal names, and return its name.

        None where the same request without it would not help: it names no field that was sent, one that was taken before, or
        the token limit under both of its names, without which an answer could cost anything.
        """
        names = names_of(request)
        field = next((field for field in fault.fields if field in names), None)
        if field is None or field in self._taken or OTHER_LIMIT.get(field) in self.left_out:
            return None
        self.left_out.add(field)
        return field


def names_of(request: dict[str, Any]) -> set[str]:
    """The names of a request's fields, as they are sent."""
    return set(request) | set(request.get("extra_body") or {})
