"""One rendering: a prompt becomes token ids here, once, and everything else receives those ids.

The chat template writes the special tokens. They are never added a second time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import takewhile
from typing import Any

from extraction.conversations import SYSTEM, USER, Conversation, Turn, has_system
from extraction.errors import ExtractionError
from extraction.limits import tried
from extraction.positions import Ends, Rendered
from extraction.prompts import Pair
from extraction.templates import check_keys, chosen_template, clock_error, fixed_clock, keys_read
from extraction.thinking import behind_trace

PROBE = "zebra crossing, 1 2\n\n(see above) :-)"  # inner spaces, lines and signs, which a template has to keep
MARK = "zebra9crossing"  # put behind a part of a conversation to see where it ends
ENDINGS = ("zebra crossing", "How are you?", "1 2 3", "Stop it!", "(see above)", 'say "no"', "na\u00efve", "x = y_")


@dataclass(frozen=True)
class RenderedPair:
    """Token ids of a declined request and of its answered twin, generation prompt included."""

    declined: list[int]
    answered: list[int]


class ChatRenderer:
    """Renders user messages through a chat template.

    template_kwargs: passed to the template, for example enable_thinking=False.
    template: `plain`, the name of one of the tokenizer's templates, a file or a text; None takes the tokenizer's own.
    clock: the day that a template which prints the date is given.
    merge_system: where the template has no place for a system text, it stands before the user's first text, with an empty line
    between.
    Raises ExtractionError where there is no template or it cannot serve: see `_check`.
    """

    def __init__(
        self,
        tokenizer: Any,
        template_kwargs: Mapping[str, Any] | None = None,
        *,
        template: str | None = None,
        clock: date | None = None,
        merge_system: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.merge_system = merge_system
        self.template_kwargs = dict(template_kwargs or {})
        self.template = chosen_template(tokenizer, template)
        self._clock_asked = False
        self._clock = fixed_clock(clock) if clock else self._ask_clock
        self._try()
        self.reads = keys_read(self.template)
        check_keys(self.template_kwargs, self.reads)
        self._check()

    def render(self, text: str) -> list[int]:
        """Token ids of a user's message or a conversation, followed by the template's generation prompt.

        A conversation that begins an answer is followed by nothing: the model goes on with it. Its ids are `Rendered`. Raises
        ExtractionError, in the template's own words, for a conversation that it does not take.
        """
        if isinstance(text, Conversation):
            return self._render_conversation(text)
        return [int(token) for token in self._apply(self.user(text), tokenize=True)]

    def render_messages(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation (role and content each) that ends with the user, and the generation prompt."""
        return [int(token) for token in self._apply([dict(message) for message in messages], tokenize=True)]

    def render_pairs(self, pairs: Iterable[Pair]) -> list[RenderedPair]:
        """Token ids of both sides of every pair."""
        return [RenderedPair(self.render(pair.declined), self.render(pair.answered)) for pair in pairs]

    @cached_property
    def rendered_probe(self) -> str:
        """The text that a fixed message becomes: what the template, its keys and the clock make of it."""
        return str(self._apply(self.user(PROBE), tokenize=False))

    @cached_property
    def num_post_tokens(self) -> int:
        """Number of tokens that the template writes after the user's text.

        Renderings of different texts have that many tokens in common at their end.
        """
        endings = zip(*(reversed(self.render(text)) for text in ENDINGS), strict=False)
        return next((count for count, tokens in enumerate(endings) if len(set(tokens)) > 1), 0)

    def takes_system(self) -> bool:
        """Whether the template has a place for a system prompt."""
        return self._takes_system

    @cached_property
    def _takes_system(self) -> bool:
        try:
            return PROBE in self._apply([{"role": "system", "content": PROBE}, *self.user("Hello")], tokenize=False)
        except ExtractionError:
            return False

    def check_lengths(self, rendered: Sequence[Sequence[int]], limit: int, what: str) -> None:
        """Raise ExtractionError for a prompt of more than `limit` tokens, by its place: nothing is cut in silence.

        what: names the prompts in the message.
        """
        for place, token_ids in enumerate(rendered, start=1):
            if len(token_ids) > limit:
                raise ExtractionError(
                    f"{what}, prompt {place} has {len(token_ids)} tokens; the model's window leaves room for {limit}. "
                    "Shorten the prompt or ask for fewer new tokens."
                )

    @staticmethod
    def user(text: str) -> list[dict[str, str]]:
        """A conversation of one message of the user's."""
        return [{"role": "user", "content": text}]

    def _render_conversation(self, chat: Conversation) -> Rendered:
        turns = self._placed(chat)
        text = self._as_text(turns)
        self._check_turns(turns, text)
        encoded = self._encoded(text)
        starts = [start for start, _ in encoded["offset_mapping"]]
        ids = [int(token) for token in encoded["input_ids"]]

        def back(end: int) -> int:
            """The offset from the prompt's end of the token that holds the character before `end`."""
            return sum(1 for _ in takewhile(lambda start: start < end, starts)) - 1 - len(ids)

        return Rendered(ids, self._ends(chat, text, back))

    def _ends(self, chat: Conversation, text: str, back: Callable[[int], int]) -> Ends:
        system = back(self._end_of(chat, 0, text)) if chat.system else None
        return Ends(system, back(self._end_of(chat, chat.last_user, text)), -1 if chat.prefill else None)

    def _end_of(self, chat: Conversation, number: int, text: str) -> int:
        """The place in the rendered text where a turn's content ends: where a mark behind it would stand."""
        turns = list(chat.turns)
        turns[number] = Turn(turns[number].role, turns[number].content.rstrip() + MARK)
        marked = self._as_text(self._placed(Conversation(turns)))
        end = marked.rfind(MARK)
        if end < 0 or marked[:end] != text[:end]:
            raise ExtractionError(f"the chat template writes turn {number + 1} so that its end cannot be found.")
        return end

    def _placed(self, chat: Conversation) -> list[Turn]:
        """The turns as the template takes them: a system text that has no place of its own is merged, or refused."""
        turns = list(chat.turns)
        if not has_system(chat) or self.takes_system():
            return turns
        if not self.merge_system:
            raise ExtractionError(
                "the chat template has no place for a system prompt. Have it put before the user's first text, with an empty "
                "line between: --set model.merge_system=true; or leave it out."
            )
        first = next(place for place, turn in enumerate(turns) if turn.role == USER)
        turns[first] = Turn(USER, f"{turns[0].content}\n\n{turns[first].content}")
        return turns[1:]

    def _check_turns(self, turns: Sequence[Turn], text: str) -> None:
        """Raise ExtractionError for a turn whose words are not in the rendered text; a trace that ended may be left out."""
        place = 0
        for number, turn in enumerate(turns, 1):
            words = behind_trace(turn.content).strip()
            found = text.find(words, place)
            if found < 0:
                raise ExtractionError(f"the chat template leaves out or changes turn {number} ({turn.role}): {words[:60]!r}.")
            place = found + len(words)

    def _as_text(self, turns: Sequence[Turn]) -> str:
        goes_on = turns[-1].role not in (USER, SYSTEM)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        return str(self._apply(messages, tokenize=False, continue_final_message=goes_on))

    def _encoded(self, text: str) -> Any:
        if not self.tokenizer.is_fast:
            raise ExtractionError(
                "positions in a conversation need a fast tokenizer (tokenizer.json), and this model's is none. Convert it with "
                "transformers."
            )
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)

    def _apply(self, messages: list[dict[str, str]], *, tokenize: bool, continue_final_message: bool = False) -> Any:
        options = {"chat_template": self.template, "strftime_now": self._clock, "return_dict": False}
        options |= {"add_generation_prompt": not continue_final_message, "continue_final_message": continue_final_message}
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=tokenize, **options, **self.template_kwargs)
        except Exception as error:  # whatever a template of the user's raises: jinja's errors, and those of its expressions
            raise ExtractionError(
                f"The chat template fails on {_called(messages)}: {type(error).__name__}: {error}. "
                "Give it the keys that it needs (model.chat_template_kwargs), or another (--template FILE)."
            ) from error

    def _ask_clock(self, form: str) -> str:
        self._clock_asked = True
        return fixed_clock(date(2000, 1, 1))(form)

    def _try(self) -> None:
        """Raise ExtractionError for a template that takes too long or too much memory to read, or on a short message."""
        trial = tried(lambda: (keys_read(self.template), self._apply(self.user(PROBE), tokenize=False)))
        if trial.limit:
            raise ExtractionError(
                f"The chat template cannot serve: on a short message {trial.limit}. Give another: --template FILE."
            )
        if trial.error:
            raise ExtractionError(trial.error)

    def _check(self) -> None:
        if PROBE not in self.rendered_probe:
            raise ExtractionError("The chat template drops or changes the user's text; check template_kwargs and the template.")
        if self._clock_asked:
            raise clock_error(self.reads, self.template_kwargs)
        if not self.num_post_tokens:
            raise ExtractionError("The chat template writes nothing after the user's text, so a response would not start there.")
        bos = self.tokenizer.bos_token_id
        if bos is not None and self.render(PROBE)[:2] == [bos, bos]:
            raise ExtractionError("The chat template begins with two BOS tokens; expected one.")


def _called(messages: Sequence[Mapping[str, str]]) -> str:
    roles = [message["role"] for message in messages]
    return "a user's message" if roles == [USER] else f"turns of {', '.join(roles[:8])}"
