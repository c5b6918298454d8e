"""A conversation with base and variant side by side, through one running engine: `bin/chat`.

Each of the two goes on with its own answers. The variant's strength may change between turns.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from engine.configs.schema import SamplingConfig
from engine.display.chat_words import HELP, beside
from engine.errors import EngineError
from engine.rollout.variants import variants_of
from engine.runs.inputs import RunInputs
from engine.runs.session import Session
from engine.runtime.requests import Asked
from extraction.conversations import ASSISTANT, SYSTEM, USER, Turn, text_of

if TYPE_CHECKING:
    from engine.inference.runtime_replica import RuntimeReplica

BASE = "base"
PREFIX = "/"


class Answering(Protocol):
    """What answers two rendered prompts at once: the base's, and one under what it asks for."""

    def answer(self, prompts: list[list[int]], sampling: SamplingConfig, asked: list[Asked | None]) -> list[str]: ...


@dataclass
class Engine:
    """An engine that takes variants out while it runs."""

    replica: "RuntimeReplica"

    def answer(self, prompts: list[list[int]], sampling: SamplingConfig, asked: list[Asked | None]) -> list[str]:
        found = {one.index: one.text for one in self.replica.engine.generate(prompts, sampling, asked)}
        return [found[place] for place in range(len(prompts))]


@dataclass
class Chat:
    """Two conversations that get the same questions. `say` answers a line that was typed; None ends."""

    inputs: RunInputs
    engine: Answering
    name: str
    asked: Asked
    system: str = ""
    turns: dict[str, list[Turn]] = field(default_factory=dict)

    def say(self, line: str, width: int) -> str | None:
        """What a line is answered with: both answers side by side, or the outcome of a command such as /alpha 0.5."""
        line = line.strip()
        if not line:
            return ""
        if not line.startswith(PREFIX):
            return self._answered(line, width)
        word, _, rest = line[1:].partition(" ")
        if word in ("quit", "exit", "q"):
            return None
        commands = {"alpha": self._alpha, "system": self._system, "new": self._new}
        return commands[word](rest.strip()) if word in commands else HELP

    def _answered(self, text: str, width: int) -> str:
        histories = {name: [*self.turns.get(name, []), Turn(USER, text)] for name in (BASE, self.name)}
        first = [Turn(SYSTEM, self.system)] if self.system else []
        prompts = [self.inputs.render_texts([text_of([*first, *turns])], "turns")[0] for turns in histories.values()]
        answers = self.engine.answer(prompts, self.inputs.config.sampling, [None, None if self.asked.is_nothing else self.asked])
        for (name, turns), answer in zip(histories.items(), answers, strict=True):
            self.turns[name] = [*turns, Turn(ASSISTANT, answer if answer.strip() else "(nothing)")]
        return beside([BASE, f"{self.name}, alpha {self.asked.alpha:g}"], answers, width)

    def _alpha(self, text: str) -> str:
        try:
            alpha = float(text)
            if not abs(alpha) < float("inf"):
                raise ValueError
        except ValueError:
            return f"/alpha takes a number, such as /alpha 0.5; found '{text}'."
        self.asked = replace(self.asked, alpha=alpha)
        return f"alpha {alpha:g}"

    def _system(self, text: str) -> str:
        self.system, self.turns = text, {}
        return "a new conversation, " + ("under that system prompt" if text else "under the system prompt that it began with")

    def _new(self, text: str) -> str:
        self.turns = {}
        return "a new conversation"


def open_chat(session: Session) -> Chat:
    """A chat with the configuration's variant, its engine started.

    Raises EngineError for what cannot be taken out at run time.
    """
    from engine.inference.runtime_replica import RuntimeReplica, beyond_runtime

    session.check_prompts()
    (variant,) = variants_of([session])
    if reason := beyond_runtime(variant):
        raise EngineError(f"Variant {variant.name} {reason}, which bin/chat does not do: it changes no weights.")
    replica = session.replica()
    assert isinstance(replica, RuntimeReplica)
    asked = replica.asked_of(variant)
    assert asked is not None
    return Chat(session, Engine(replica), variant.name, asked)


def talk(chat: Chat, lines: Iterable[str], width: int) -> Iterable[str]:
    """The answers to lines that are typed, until one of them ends it."""
    for line in lines:
        answer = chat.say(line, width)
        if answer is None:
            return
        yield answer
