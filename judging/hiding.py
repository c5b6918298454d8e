"""Blanks an endpoint's key out of what the endpoint says: whole, in pieces, in another case, or in another writing.

An endpoint has the key anyway. What it says goes into files that people share.
"""

import base64
import re
import urllib.parse

HIDDEN = "[key]"
PIECE = 8  # characters of a key in a row that give it away; a shorter one, such as "none" or "EMPTY", is a placeholder
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|%([0-9a-fA-F]{2})|&#x([0-9a-fA-F]{2,4});")


def hide(text: str, secret: str) -> str:
    """The text without the key, or pieces of PIECE characters of it, in any of the writings that texts are sent in."""
    if len(secret) < PIECE:
        return text
    plain = _blank(text, secret)
    for writing in _encoded(secret):
        plain = _blank(plain, writing)
    written_out = ESCAPE.sub(lambda found: chr(int(next(part for part in found.groups() if part), 16)), plain)
    hidden = _blank(written_out, secret)
    return plain if hidden == written_out else hidden


def _encoded(secret: str) -> list[str]:
    """The key in hexadecimal, and inside base64, where what stands before it moves it by 0 to 2 bytes."""
    data = secret.encode()
    found = [data.hex(), urllib.parse.quote(secret, safe="")]
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        inner = coded[-(-shift * 4 // 3) : len(coded) - 1]
        found += [inner, inner.replace("+", "-").replace("/", "_")]
    return [writing for writing in found if len(writing) >= PIECE and writing != secret]


def _blank(text: str, secret: str) -> str:
    """The text with every run of PIECE or more of the secret's characters blanked, whatever their case."""
    low, wanted = text.lower(), secret.lower()
    if len(low) != len(text):  # a character whose small letters are two
        low = "".join(sign.lower() if len(sign.lower()) == 1 else sign for sign in text)
    pieces = {wanted[start : start + PIECE] for start in range(len(wanted) - PIECE + 1)}
    if not any(piece in low for piece in pieces):
        return text
    covered = bytearray(len(text))
    for piece in pieces:
        for found in re.finditer(f"(?={re.escape(piece)})", low):
            covered[found.start() : found.start() + PIECE] = b"\1" * PIECE
    kept = [sign if not hit else "\0" for sign, hit in zip(text, covered, strict=True)]
    return re.sub("\0+", HIDDEN, "".join(kept))
