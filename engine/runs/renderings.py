"""Prompts as token ids, each rendered once under each condition: every variant is asked the same ones."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from editing.checkpoint import Checkpoint
from engine.configs.schema import ModelConfig
from engine.errors import EngineError
from engine.models.tokenizer import open_renderer
from engine.models.window import vocabulary_of
from extraction.conversations import to_json
from extraction.errors import ExtractionError

if TYPE_CHECKING:
    from extraction.rendering import ChatRenderer


class Renderings:
    """Token ids of prompts by condition; "" is the run's own way of asking. A template costs 0.2 ms a prompt."""

    def __init__(self, checkpoint: Checkpoint, models: Mapping[str, ModelConfig], own: Callable[[], "ChatRenderer"]) -> None:
        """`models`: the model's settings under each condition; `own`: opens the rendering under the run's own."""
        self.checkpoint, self.models, self._own = checkpoint, models, own
        self._renderers: dict[str, ChatRenderer] = {}
        self._token_ids: dict[tuple[str, str], list[int]] = {}

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt so far."""
        return max(map(len, self._token_ids.values()), default=0)

    def of(self, asked: Sequence[tuple[str, str]], kind: str) -> list[list[int]]:
        """Token ids of prompts, each with its condition. Raises ExtractionError, by the prompt's place, for one that the template
        does not take."""
        return [self._known(*one, f"{kind}, prompt {place}") for place, one in enumerate(asked, 1)]

    def renderer(self, condition: str) -> "ChatRenderer":
        """The rendering under a condition: the run's own, but for another day or other keys of the template."""
        if self.models[condition] == self.models[""]:
            return self._own()
        if condition not in self._renderers:
            self._renderers[condition] = open_renderer(self.checkpoint.directory, self.models[condition])
        return self._renderers[condition]

    def _known(self, text: str, condition: str, where: str) -> list[int]:
        key = (condition, to_json(text) or text)
        if key not in self._token_ids:
            try:
                token_ids = self.renderer(condition).render(text)
            except ExtractionError as error:
                raise ExtractionError(f"{where}: {error}") from error
            self._check_vocabulary(token_ids)
            self._token_ids[key] = token_ids
        return self._token_ids[key]

    def _check_vocabulary(self, token_ids: Sequence[int]) -> None:
        if max(token_ids) >= self._vocabulary:
            raise EngineError(
                f"{self.checkpoint.directory}: its tokenizer gives token {max(token_ids)}, and its embedding has "
                f"{self._vocabulary} rows. Tokenizer and weights are of different models."
            )

    @cached_property
    def _vocabulary(self) -> int:
        return vocabulary_of(self.checkpoint)
