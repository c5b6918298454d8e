"""Conversations: turns by role, and the text that stands for them wherever a prompt's text is shown, compared or graded.

    chat = Conversation([Turn("system", "Answer in French."), Turn("user", "What is a key?")])
    chat == "[system]\\nAnswer in French.\\n\\n[user]\\nWhat is a key?"

A conversation of one user's turn is that turn's text and nothing else, so plain prompts stay strings. Knows nothing of
templates: which roles one takes, its renderer says.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from extraction.errors import ExtractionError
from extraction.tables import kind_of
from extraction.thinking import WRITTEN

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ENDS = (USER, ASSISTANT)


@dataclass(frozen=True)
class Turn:
    """What one side said. `role` is a template's own word: system, user, assistant, tool."""

    role: str
    content: str


class Conversation(str):
    """A conversation: as a string it is its transcript, and `turns` are what a template renders.

    The last turn is the user's, or the beginning of an answer (the prefill), which the model goes on with.
    """

    turns: tuple[Turn, ...]

    def __new__(cls, turns: Sequence[Turn]) -> "Conversation":
        """Raises ExtractionError for no turn, an empty one, and a last one that is neither the user's nor an assistant's."""
        check_turns(turns)
        made = super().__new__(cls, "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in turns))
        made.turns = tuple(turns)
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.turns,)

    @property
    def system(self) -> str:
        """The system text, "" where there is none."""
        return self.turns[0].content if self.turns[0].role == SYSTEM else ""

    @property
    def last_user(self) -> int:
        """The place of the last turn of the user's."""
        return max(place for place, turn in enumerate(self.turns) if turn.role == USER)

    @property
    def prefill(self) -> str:
        """The beginning of the answer, "" where there is none."""
        return self.turns[-1].content if self.turns[-1].role == ASSISTANT else ""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as chat templates and endpoints take them."""
        return [asdict(turn) for turn in self.turns]


def check_turns(turns: Sequence[Turn]) -> None:
    """Raise ExtractionError for turns that are no conversation, naming the turn."""
    if not turns:
        raise ExtractionError("a conversation has no turns; expected at least the user's.")
    for number, turn in enumerate(turns, 1):
        if not turn.content.strip():
            raise ExtractionError(f"turn {number} ({turn.role}) is empty. Write its text, or leave the turn out.")
        if turn.role == SYSTEM and number > 1:
            raise ExtractionError(f"turn {number} is a system prompt; expected it first, or not at all.")
    if turns[-1].role not in ENDS:
        raise ExtractionError(
            f"the conversation ends with a turn of {turns[-1].role!r}; expected the user's, or an assistant's that the model "
            "goes on with."
        )
    if USER not in {turn.role for turn in turns}:
        raise ExtractionError("no turn is the user's, so nothing is asked. Add one.")
    for number, turn in enumerate(turns[:-1], 1):
        begins, ends = next(((one, end) for one, end in WRITTEN if one in turn.content and end not in turn.content), ("", ""))
        if turn.role == ASSISTANT and begins:
            raise ExtractionError(
                f"turn {number} begins a trace ({begins}) that no {ends} ends. End it, or leave the trace out; only the last "
                "turn may be continued."
            )


def text_of(turns: Sequence[Turn]) -> str:
    """A conversation, or the text itself where it is one turn of the user's alone."""
    if len(turns) == 1 and turns[0].role == USER:
        check_turns(turns)
        return turns[0].content
    return Conversation(turns)


def turns_of(text: str) -> tuple[Turn, ...]:
    """The turns of a prompt, plain or a conversation."""
    return text.turns if isinstance(text, Conversation) else (Turn(USER, text),)


def has_system(text: str) -> bool:
    """Whether a prompt brings a system text."""
    return isinstance(text, Conversation) and bool(text.system)


def with_system(text: str, system: str | None) -> str:
    """A prompt under a system text; one that brings its own keeps it."""
    return text if not system or has_system(text) else Conversation([Turn(SYSTEM, system), *turns_of(text)])


def read_messages(value: Any, where: str) -> str:
    """A prompt from chat messages, [{"role": ..., "content": ...}, ...]. Raises ExtractionError for any other value."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, Mapping) for turn in value):
        raise ExtractionError(f"{where} must be text or chat messages, found {kind_of(value)}.")
    turns = [_turn(turn, f"{where}: turn {number}") for number, turn in enumerate(value, 1)]
    try:
        return text_of(turns)
    except ExtractionError as error:
        raise ExtractionError(f"{where}: {error}") from error


def to_json(text: str) -> str | None:
    """A conversation's messages as JSON, for a table's cell; None for a plain prompt, which its text is."""
    return json.dumps(text.messages, ensure_ascii=False) if isinstance(text, Conversation) else None


def from_row(row: Mapping[str, Any]) -> str:
    """The prompt of a table's row: of its `messages` where there are any, else its `prompt`."""
    messages = row.get("messages")
    return str(row["prompt"]) if messages is None else read_messages(json.loads(messages), "messages")


def _turn(turn: Mapping[str, Any], where: str) -> Turn:
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str) or not role.strip() or not isinstance(content, str):
        raise ExtractionError(f"{where} must have a role and a content that are texts.")
    if others := sorted(str(key) for key, value in turn.items() if key not in ("role", "content") and value is not None):
        raise ExtractionError(f"{where} has {others[0]!r}; only a role and a content are read. Leave it out.")
    return Turn(role, content)
