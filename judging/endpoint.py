"""An OpenAI-compatible endpoint that judges: where it is, what it is asked, how fast, and what it costs."""

import os
import re
import ssl
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from judging.errors import JudgeError

MILLION = 1_000_000
AUTHORIZATION = "Authorization"
UNSET = "unset"
ROUTE = "/chat/completions"
KEY_NAMES = re.compile(r"([\w-]*[-_])?(api)?(key|token|secret|sig|signature|code)|[\w-]*authorization|cookie", re.IGNORECASE)
OWN_FIELDS = {
    "model": "model",
    "messages": "rubric",
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens and max_tokens_field",
    "response_format": "structured",
    "structured_outputs": "structured",
    "n": "--repeat",
    "stream": "nothing: streams are not read",
}


def _unset(value: Any) -> Any:
    """None for "unset", the way to leave a field out in TOML and by --set, which have no null."""
    return None if value == UNSET else value


class Price(BaseModel):
    """Prices of one model per million tokens, in whatever currency the whole table uses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0)
    """Of prompt tokens that the endpoint says it had cached; None: the price of any input."""

    def times(self, share: float) -> "Price":
        """The price times a share."""
        cached = None if self.cached_input is None else self.cached_input * share
        return Price(input=self.input * share, output=self.output * share, cached_input=cached)

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """Cost of one call. `cached_tokens` are among the prompt tokens."""
        cached = self.input if self.cached_input is None else self.cached_input
        hit = min(cached_tokens, prompt_tokens)
        return ((prompt_tokens - hit) * self.input + hit * cached + completion_tokens * self.output) / MILLION


class Endpoint(BaseModel):
    """A judge's endpoint. Unknown keys are errors. The key itself is never a field: `api_key_env` names where it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    """Such as https://api.deepseek.com/v1: what comes before /chat/completions. That route, and a query, may stand in it too."""
    query: dict[str, str] = {}
    """Of every request's address, such as api-version for Azure. What base_url has of it is moved here."""
    headers: dict[str, str] = {}
    """Sent along with every request, such as HTTP-Referer for OpenRouter. Never a key: files are shared."""
    model: str = Field(min_length=1)
    """The endpoint's name for the model."""
    api_key_env: str | None = None
    """Environment variable that holds the key; None for an endpoint that asks for none."""
    key_header: str = AUTHORIZATION
    """The header that carries the key: Authorization as a bearer token, or another as it is (Azure's deployments: api-key)."""
    ca_file: str | None = None
    """Certificates (PEM) that the endpoint's own is signed by, for TLS of your own; None: those that the system trusts."""
    structured: Literal["json_schema", "json_object", "choice", "none"] = "json_schema"
    """How the form of the answer is enforced: JSON schema, any JSON, one of vLLM's choices (no reason then), not at all."""
    temperature: Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_unset)] = 0.0
    """"unset" leaves it to the endpoint: some reasoning models refuse the field."""
    merge_system: bool = False
    """True puts the instructions into the user's message: some models have no system role."""
    max_tokens: int = Field(256, ge=1)
    """New tokens of an answer."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """OpenAI's newer models know the second name only."""
    extra_body: dict[str, Any] = {}
    """Sent along as it is, such as chat_template_kwargs for a vLLM server. Not what has a setting of its own here."""
    max_concurrency: int = Field(96, ge=1)
    """Calls in flight over all workers, at most; while Ray's take over, those of this process come on top for a moment. They
    start at a few and find their own number from what the endpoint answers."""
    workers: int = Field(2, ge=1, le=16)
    """Ray actors that make the calls. One makes several hundred a second."""
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    """Limits of the account, over all workers; None: whatever 429 teaches."""
    timeout_s: float = Field(60, gt=0)
    """Of one attempt, from sending to the last byte."""
    deadline_s: float = Field(300, gt=0)
    """Of one call with all of its attempts, and the longest pause that an endpoint may ask for."""
    loading_s: float = Field(300, ge=0)
    """How long a server that says it is loading its model (503) is waited for; not counted against a call's deadline."""
    max_attempts: int = Field(6, ge=1)
    """Of one call; being told to slow down is not counted."""
    breaker_failures: int = Field(20, ge=1)
    breaker_s: float = Field(30, gt=0)
    """After this many failures in a row over at least this many seconds the endpoint counts as down, and judging stops."""
    prices: dict[str, Price] = {}
    """By model. Without a price, costs are not known and --max-cost is refused."""
    currency: str = "USD"
    """Of the prices."""
    batch_discount: float = Field(0.5, gt=0, le=1)
    """What a question costs in a batch, as a share of its price."""
    batch_poll_s: float = Field(30, gt=0)
    """Seconds between two looks at a batch."""
    price_note: str = ""
    """When and where the prices were read."""

    @model_validator(mode="before")
    @classmethod
    def _split_address(cls, table: Any) -> Any:
        """Take query and route out of base_url, however much of an address was written there."""
        url = table.get("base_url") if isinstance(table, dict) else None
        if not isinstance(url, str):
            return table
        address, _, query = url.partition("?")
        address = address.rstrip("/").removesuffix(ROUTE)
        found = dict(parse_qsl(query, keep_blank_values=True))
        written = table.get("query")
        return {**table, "base_url": address} | ({"query": found | (written or {})} if found else {})

    @field_validator("query", "headers")
    @classmethod
    def _holds_no_key(cls, table: dict[str, str]) -> dict[str, str]:
        if named := next((name for name in table if KEY_NAMES.fullmatch(name)), None):
            raise ValueError(f"'{named}' would put a key into files; name its variable in api_key_env, its header in key_header")
        return table

    @field_validator("extra_body")
    @classmethod
    def _has_no_setting(cls, body: dict[str, Any]) -> dict[str, Any]:
        if named := next((name for name in body if name in OWN_FIELDS), None):
            raise ValueError(f"'{named}' would be sent and not counted with; its setting is {OWN_FIELDS[named]}")
        return body

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise ValueError("a URL with a user or a password in it would end up in files; name a key's variable in api_key_env")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_variables_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError("expected the name of an environment variable in capitals, such as OPENAI_API_KEY, not a key itself")
        return name

    @property
    def is_limited(self) -> bool:
        """True where the account has rate limits."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None

    @property
    def price(self) -> Price | None:
        return self.prices.get(self.model)

    @property
    def in_batches(self) -> "Endpoint":
        """The endpoint with a batch's prices. A question has the same address in the cache, asked either way."""
        prices = {model: price.times(self.batch_discount) for model, price in self.prices.items()}
        return self.model_copy(update={"prices": prices})

    def check_price(self, max_cost: float | None) -> None:
        """Raise JudgeError for a cost limit without a price to compute it by."""
        if max_cost is not None and self.price is None:
            known = ", ".join(sorted(self.prices)) or "nothing"
            raise JudgeError(
                f"A cost limit needs a price for the model '{self.model}'; the price table of the judge's file has {known}. "
                f'Add [endpoint.prices."{self.model}"] with input and output, per million tokens.'
            )

    def key(self) -> SecretStr | None:
        """The API key from the environment; None for an endpoint that asks for none.

        Raises JudgeError that names the variable where it is missing or is no key.
        """
        if self.api_key_env is None:
            return None
        value = os.environ.get(self.api_key_env, "").strip()
        if not value:
            raise JudgeError(
                f"The judge at {self.base_url} needs a key: set the environment variable {self.api_key_env}. "
                "Keys are not read from files."
            )
        if not value.isascii() or not value.isprintable():
            raise JudgeError(f"The environment variable {self.api_key_env} holds characters that no key has.")
        return SecretStr(value)

    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS by the certificates of `ca_file`; None without one. Raises JudgeError for a file that cannot be read as such."""
        if self.ca_file is None:
            return None
        try:
            return ssl.create_default_context(cafile=os.path.expanduser(self.ca_file))
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise JudgeError(f"ca_file {self.ca_file} cannot be read ({said}); expected certificates as PEM text.") from error

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings that decide an answer, beside messages and rubric; part of a cached call's address.

        What was added later stands there only where it is set, so that answers of earlier versions are found.
        """
        asked = self.model_dump(include={"base_url", "model", "structured", "temperature", "max_tokens", "extra_body"})
        added = {"query": self.query, "merge_system": self.merge_system}
        return asked | {name: value for name, value in added.items() if value}
