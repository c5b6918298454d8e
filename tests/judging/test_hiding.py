"""A key is blanked in every form that an endpoint may say it in, and nothing else is."""

import base64
import contextlib
import json
import urllib.parse

import pytest

from judging.hiding import HIDDEN, hide

KEY = "sk-SECRET/9f3+TKEY-abc"
TEXT = "The request was refused for its size, and 3 of 4 grades are 0.5."


def forms() -> dict[str, str]:
    data = KEY.encode()
    return {
        "whole": f"bad key {KEY}.",
        "twice": f"{KEY} {KEY}",
        "upper case": f"bad key {KEY.upper()}",
        "split": f"bad key {KEY[:9]}...{KEY[-9:]}",
        "percent": f"?key={urllib.parse.quote(KEY, safe='')}&x=1",
        "percent, all of it": "".join(f"%{byte:02x}" for byte in data),
        "base64": base64.b64encode(data).decode(),
        "base64 behind Bearer": base64.b64encode(b"Bearer " + data).decode(),
        "base64 behind user": base64.b64encode(b"user1:" + data + b" more").decode(),
        "hexadecimal": data.hex(),
        "JSON escapes": json.dumps({"reason": "x"})[:-1] + ', "k": "' + "".join(f"\\u{byte:04x}" for byte in data) + '"}',
        "one escape": f"{KEY[:3]}\\u0053{KEY[4:]}",
        "HTML": "".join(f"&#x{byte:02x};" for byte in data),
    }


@pytest.mark.parametrize("form", forms())
def test_no_eight_characters_of_a_key_are_left(form: str) -> None:
    hidden = hide(forms()[form], KEY)
    decoded = json.loads(f'"{hidden}"') if form == "one escape" else hidden
    assert HIDDEN in hidden
    for piece in (KEY[start : start + 8] for start in range(len(KEY) - 7)):
        for text in (hidden, decoded, urllib.parse.unquote(hidden)):
            assert piece.lower() not in text.lower()
    for run in hidden.replace(HIDDEN, " ").split():
        with contextlib.suppress(ValueError):  # no base64
            assert KEY[4:12] not in base64.b64decode(run + "===").decode("latin-1")


@pytest.mark.parametrize("text", [TEXT, "", '{"reason": "caf\\u00e9 100%25", "compliance": 0}', "İstanbul sk-SECR"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert hide(text, KEY) == text


@pytest.mark.parametrize("placeholder", ["", "none", "EMPTY"])
def test_a_placeholder_is_no_secret(placeholder: str) -> None:
    assert hide(f"none {placeholder} EMPTY", placeholder) == f"none {placeholder} EMPTY"
