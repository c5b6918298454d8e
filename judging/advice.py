"""What to do about an endpoint that takes no calls: the setting that fits its own words, instead of one hint for all causes."""

import os
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from judging.endpoint import ROUTE, Endpoint

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def advice(endpoint: Endpoint, reason: str) -> str:
    """One or two sentences on the setting to change, by the words with which judging stopped."""
    for words, help_with in CAUSES:
        if re.search(words, reason, re.IGNORECASE):
            return help_with(endpoint)
    return "Check base_url, model and the key's variable in the judge's file."


def _key(endpoint: Endpoint) -> str:
    if endpoint.api_key_env is None:
        return "The judge's file names no key: set api_key_env to the environment variable that holds it."
    return f"Check the key in the environment variable {endpoint.api_key_env}."


def _address(endpoint: Endpoint) -> str:
    asked = f"The address asked was {endpoint.base_url}{ROUTE}."
    if not re.search(r"/v\d", urlsplit(endpoint.base_url).path):
        return f'{asked} Most servers want base_url to end in /v1: try base_url = "{endpoint.base_url}/v1". Check model too.'
    return f"{asked} Check base_url, and model, which is '{endpoint.model}'."


def _unreachable(endpoint: Endpoint) -> str:
    found = [name for name in PROXIES if os.environ.get(name) or os.environ.get(name.lower())]
    proxy = f" Calls go through the proxy in {found[0]}; NO_PROXY lists hosts that need none." if found else ""
    return f"Check that the server runs, and base_url, which is {endpoint.base_url}.{proxy}"


def _say(text: str) -> Callable[[Endpoint], str]:
    return lambda endpoint: text


CAUSES: tuple[tuple[str, Callable[[Endpoint], str]], ...] = (
    (r"certificate|CERTIFICATE_VERIFY|SSL", _say("If the certificate is your own, name the file that signs it: ca_file.")),
    (r"a redirect to", _say("Write the new address as base_url, up to /v1, if you trust it.")),
    (r"key was not accepted", _key),
    (r"no credit|quota is used up", _say("Top the account up, or name another judge; what was judged is kept.")),
    (r"takes nothing within", _say("Run again later, or raise endpoint.deadline_s above the pause that it asks for.")),
    (r"still loading", _say("Run again when it has loaded, or raise endpoint.loading_s.")),
    (r"nothing answers", _unreachable),
    (r"is a stream", _say("This address only streams; expected one JSON body. Name the server behind it in base_url.")),
    (r"a web page", _address),
    (r"no such (model or )?address", _address),
    (
        r"system.{0,20}(role|message)|role.{0,20}system",
        _say("Merge the instructions into the user's: merge_system = true."),
    ),
    (r"response_format|json_schema|json_object", _say('Set structured = "json_object" or "none" in the judge\'s file.')),
    (r"structured_outputs|guided_", _say('Set structured = "json_schema" or "none" in the judge\'s file.')),
    (r"temperature", _say('Leave it out with temperature = "unset", or give the one value it takes.')),
    (r"context (length|window)|too (long|large)|max(imum)?[_ ]context", _say("Name a model with a longer context window.")),
    (r"max_(completion_)?tokens", _say("Set max_tokens_field to the name that it takes: max_tokens or max_completion_tokens.")),
    (r"seed|extra|unknown (name|field|param)|unrecognized", _say("Remove the field that it names from extra_body.")),
    (r"api-version|api_version", _say('Azure wants its version in the judge\'s file: query = { "api-version" = "2024-10-21" }.')),
)
