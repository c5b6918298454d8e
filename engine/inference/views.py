"""Has the base read requests and the beginnings of their responses, for the fitted judge (judging.view).

What is read is short, and shares what an engine holds already: a request's tokens are computed once for all of its responses,
the control requests' once for all. Every sequence of token ids comes from the caller's renderer and tokenizer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from judging.view import CONTROLS, LEAST_REFUSING, NEXT_TOKENS, OPENINGS, VIEWED_TOKENS, BaseView

if TYPE_CHECKING:
    from engine.inference.replica import Replica

AT_ONCE = 512  # responses whose requests the engine is to hold


@dataclass(frozen=True)
class ViewTokens:
    """What a model is asked with: the control requests as rendered token ids, and the tokens that begin a refusal."""

    controls: tuple[tuple[int, ...], ...]
    openings: frozenset[int]


def view_tokens(tokenizer: Any, render: Callable[[str], Sequence[int]]) -> ViewTokens:
    """The controls and openings of a model. render: a request's text as the chat template has it."""
    begun = [tokenizer.encode(opening, add_special_tokens=False) for opening in OPENINGS]
    return ViewTokens(tuple(tuple(render(text)) for text in CONTROLS), frozenset(ids[0] for ids in begun if ids))


def base_views(
    replica: "Replica",
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    tokens: ViewTokens,
    on_row: Callable[[], None] = lambda: None,
) -> list[BaseView | None]:
    """The view of each response by the engine's current weights, which are to be the base's; None of an empty response."""
    starts = [tuple(response[:VIEWED_TOKENS]) for response in responses]
    found: list[BaseView | None] = [None] * len(starts)
    in_order = sorted((place for place, start in enumerate(starts) if start), key=lambda place: tuple(prompts[place]))
    for first in range(0, len(in_order), AT_ONCE):
        places = in_order[first : first + AT_ONCE]
        read = _read([prompts[place] for place in places], [starts[place] for place in places], tokens, replica, on_row)
        for place, view in zip(places, read, strict=True):
            found[place] = view
    return found


def _read(
    prompts: Sequence[Sequence[int]],
    starts: Sequence[Sequence[int]],
    tokens: ViewTokens,
    replica: "Replica",
    on_row: Callable[[], None],
) -> list[BaseView]:
    """Views of responses that are not empty: the requests first, so that the engine holds them when the responses come."""
    asked = sorted({tuple(prompt) for prompt in prompts})
    shares = dict(zip(asked, replica.opening_shares(asked, tokens.openings, NEXT_TOKENS), strict=True))
    given = replica.mean_logprobs(prompts, starts, on_row, shared=True)
    behind = [replica.mean_logprobs([control] * len(starts), starts, shared=True) for control in tokens.controls]
    read = []
    for prompt, own, *others in zip(prompts, given, *behind, strict=True):
        known = [value for value in others if value is not None]
        assert own is not None and len(known) == len(tokens.controls)
        read.append(BaseView(own, sum(known) / len(known), max(shares[tuple(prompt)], LEAST_REFUSING)))
    return read
