"""One rendering: a prompt becomes token ids here, once, and everything else receives those ids.

The tokenizer's own chat template writes the special tokens. They are never added a second time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from extraction.errors import ExtractionError
from extraction.prompts import Pair


@dataclass(frozen=True)
class RenderedPair:
    """Token ids of a declined request and of its answered twin, generation prompt included."""

    declined: list[int]
    answered: list[int]


class ChatRenderer:
    """Renders user messages through a tokenizer's chat template.

    template_kwargs: passed to the template, for example enable_thinking=False. A template that writes today's date needs a
    fixed date_string, or tomorrow's token ids are others.
    Raises ExtractionError where there is no template or it cannot serve: see `_check`.
    """

    def __init__(self, tokenizer: Any, template_kwargs: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.template_kwargs = dict(template_kwargs or {})
        self._check()

    def render(self, text: str) -> list[int]:
        """Token ids of one user message followed by the template's generation prompt."""
        return list(self._apply(text, add_generation_prompt=True, tokenize=True))

    def render_pairs(self, pairs: Iterable[Pair]) -> list[RenderedPair]:
        """Token ids of both sides of every pair."""
        return [RenderedPair(self.render(pair.declined), self.render(pair.answered)) for pair in pairs]

    @cached_property
    def num_post_tokens(self) -> int:
        """Number of tokens that the template writes after the user's text.

        Renderings of different texts have that many tokens in common at their end.
        """
        probes = [self.render(text) for text in ("zebra crossing", "How are you?", "1 2 3", "Stop it!", "(see above)")]
        endings = zip(*(reversed(token_ids) for token_ids in probes), strict=False)
        return next(count for count, tokens in enumerate(endings) if len(set(tokens)) > 1)

    def check_lengths(self, rendered: Sequence[Sequence[int]], limit: int, what: str) -> None:
        """Raise ExtractionError for a prompt of more than `limit` tokens, by its index: nothing is cut in silence.

        what: names the prompts in the message.
        """
        for index, token_ids in enumerate(rendered):
            if len(token_ids) > limit:
                raise ExtractionError(
                    f"{what}, prompt {index} has {len(token_ids)} tokens; the model's window leaves room for {limit}. "
                    "Shorten the prompt or ask for fewer new tokens."
                )

    def _apply(self, text: str, **options: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return self.tokenizer.apply_chat_template(messages, return_dict=False, **options, **self.template_kwargs)

    def _check(self) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            raise ExtractionError("The tokenizer has no chat template; use an instruction-tuned model.")
        probe = "zebra crossing"
        with_prompt = self._apply(probe, add_generation_prompt=True, tokenize=False)
        if probe not in with_prompt:
            raise ExtractionError("The chat template drops the user's text; check template_kwargs and the tokenizer's files.")
        if with_prompt == self._apply(probe, add_generation_prompt=False, tokenize=False):
            raise ExtractionError("The chat template writes no generation prompt, so a response would not start after it.")
        bos = self.tokenizer.bos_token_id
        if bos is not None and self.render(probe)[:2] == [bos, bos]:
            raise ExtractionError("The chat template begins with two BOS tokens; expected one.")
