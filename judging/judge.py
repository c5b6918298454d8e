"""What a judge is asked: hooks that build a question and parse a reply. The network is `judging.network`'s alone."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from judging.errors import JudgeError

Message = dict[str, str]


class Hooks(ABC):
    """A kind of question: the messages that ask it and the parser of its replies.

    hash: names the wording and the form of the answer; part of a cached call's address.
    """

    name: str
    schema: Mapping[str, Any]
    probe: Any  # an item that no endpoint has a reason to refuse

    @property
    @abstractmethod
    def hash(self) -> str: ...

    @property
    def choices(self) -> list[str]:
        """Every possible reply, for endpoints that choose one. Raises JudgeError where there are too many."""
        raise JudgeError("structured = 'choice' fits questions with a few possible answers; this one asks for a text.")

    @property
    @abstractmethod
    def instructions(self) -> str:
        """The system message, the same for all items."""

    @abstractmethod
    def question(self, item: Any) -> str:
        """The user message about one item."""

    @property
    def first_message(self) -> Message:
        return {"role": "system", "content": self.instructions}

    def messages(self, item: Any) -> list[Message]:
        """The chat messages of one call: instructions, then the question about an item."""
        return [self.first_message, {"role": "user", "content": self.question(item)}]

    @abstractmethod
    def parse(self, reply: str) -> Any:
        """The value that a reply gives. Raises Fault("unusable") for a reply that gives none."""


def fenced(texts: Mapping[str, str]) -> str:
    """The texts between marker lines, as one text.

    The markers carry a code made of the texts' hash, which no text can contain beforehand.
    """
    code = hashlib.sha256("\0".join(texts.values()).encode("utf-8", "replace")).hexdigest()[:12]
    parts = [f"=== {name} {code} begins ===\n{text}\n=== {name} {code} ends ===" for name, text in texts.items()]
    return "\n\n".join(parts)
