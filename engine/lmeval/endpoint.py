"""The models that an OpenAI-compatible endpoint serves, asked for before it is benchmarked."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import EngineError

KEY_VARIABLES = ("OPENAI_API_KEY", "VLLM_API_KEY")
HASH = re.compile(r"-([0-9a-f]{16})(?:-lora)?$")  # how the folders end that bin/serve makes
DEFAULT_LENGTH = 2048


@dataclass(frozen=True)
class EndpointModel:
    """A model that an endpoint lists: its variant's hash, where its folder tells, and the most tokens it takes."""

    name: str
    variant_hash: str | None
    max_length: int


def endpoint_key() -> str | None:
    """The key that clients give, from the environment."""
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)


def served_models(url: str, names: Sequence[str]) -> list[EndpointModel]:
    """`names` as the endpoint lists them. Raises EngineError where it does not answer, wants a key, or lacks one of them."""
    import httpx
    import openai

    client = openai.OpenAI(base_url=url, api_key=endpoint_key() or "none", max_retries=1, timeout=30)
    try:
        listed = {model.id: model.model_dump() for model in client.models.list().data}
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        raise EngineError(f"{url} wants a key, or another one: set {' or '.join(KEY_VARIABLES)}.") from None
    except (
        openai.OpenAIError,
        httpx.InvalidURL,
        AttributeError,
        TypeError,
        ValueError,
    ) as error:  # also an answer that is no list
        raise EngineError(f"{url}/models does not answer ({error}). Is the server up, and does the address end in /v1?") from None
    if missing := [name for name in names if name not in listed]:
        raise EngineError(
            f"{url} serves {', '.join(listed)}; there is no {missing[0]}. Start it with bin/serve --variant ... --with-base."
        )
    return [_served(name, listed) for name in names]


def _served(name: str, listed: Mapping[str, Mapping[str, object]]) -> EndpointModel:
    card = listed[name]
    found = HASH.search(str(card.get("root") or ""))
    base = listed.get(str(card.get("parent")), {})  # an adapter takes what its base takes
    length = card.get("max_model_len") or base.get("max_model_len") or DEFAULT_LENGTH
    return EndpointModel(name, found[1] if found else None, int(str(length)))
