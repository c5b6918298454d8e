"""Which slot each variant and strength has, and which slot each token of a pass: the requests' side of the tables.

The engine has as many slots as requests run at once, so a pass never asks for more; a variant keeps its slot until another
needs it. Plain Python, without vLLM.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.runtime.interventions import Intervention, Interventions
from engine.runtime.requests import EVERY, LAST, PROMPT, RESPONSE, Asked

Key = tuple[str, float, float, str]  # variant, alpha, add, site


@dataclass(frozen=True)
class Live:
    """A request under way that asks for an intervention."""

    asked: Asked
    prompt_length: int

    @cached_property
    def key(self) -> Key:
        return self.asked.variant, self.asked.alpha, self.asked.add, self.asked.site


class Slots:
    """Fills `tables` for each pass; `make` builds the intervention that a request asks for, when it first runs."""

    def __init__(self, tables: Interventions, make: Callable[[Asked], Intervention]) -> None:
        self.tables, self.make = tables, make
        self.live: dict[str, Live] = {}
        self.held: dict[Key, int] = {}  # least recently used first
        self._before: tuple[list[str], list[int]] | None = None  # the pass that the tables are filled for

    def begin(self, request: str, asked: Asked | None, prompt_length: int) -> None:
        """A request is under way; one that asks for nothing needs no slot."""
        self._before = None
        self.live.pop(request, None)
        if asked is not None:
            self.live[request] = Live(asked, prompt_length)

    def end(self, requests: Iterable[str]) -> None:
        """These requests are over."""
        for request in requests:
            self._before = None
            self.live.pop(request, None)

    def forget(self, variant: str) -> None:
        """Slots of a variant are free; its rows have changed, or it is gone."""
        self._before = None
        for key in [key for key in self.held if key[0] == variant]:
            del self.held[key]

    def fill(self, requests: Sequence[str], lengths: Sequence[int], computed: Mapping[str, int]) -> None:
        """Name every token's slot for a pass: requests in its order, their tokens in it, and those computed before.

        A pass of the same requests as the one before, a token each, finds its slots there.
        """
        this = (list(requests), list(lengths))
        if this == self._before:
            return
        live = {request: self.live[request] for request in requests if request in self.live}
        taken = self._take({one.key: one.asked for one in live.values()})
        slots: list[int] = []
        numbers: list[int] = []
        for request, length in zip(requests, lengths, strict=True):
            one = live.get(request)
            if one is None or one.asked.positions == EVERY:
                slots.append(0 if one is None else taken[one.key])
                numbers.append(length)
                continue
            slots += [0, taken[one.key], 0]
            numbers += _parts(one.asked.positions, computed[request] - one.prompt_length, length)
        self.tables.fill(slots, numbers)
        self._before = this if all(one.asked.positions == EVERY for one in live.values()) else None

    def _take(self, needed: Mapping[Key, Asked]) -> dict[Key, int]:
        for key in needed.keys() & self.held.keys():
            self.held[key] = self.held.pop(key)  # now the most recently used
        for key, asked in needed.items():
            if key not in self.held:
                slot = self._free(needed)
                self.tables.put(slot, self.make(asked))
                self.held[key] = slot
        return {key: self.held[key] for key in needed}

    def _free(self, needed: Mapping[Key, Asked]) -> int:
        if len(self.held) < self.tables.num_slots:
            return min(set(range(1, self.tables.num_slots + 1)) - set(self.held.values()))
        oldest = next(key for key in self.held if key not in needed)
        return self.held.pop(oldest)


def _parts(positions: str, start: int, length: int) -> list[int]:
    """Tokens before, at and behind the named positions, of `length` tokens that start `start` behind the prompt's end."""
    first, last = {PROMPT: (start, 0), RESPONSE: (0, start + length), LAST: (-1, 0)}[positions]
    before = min(max(first - start, 0), length)
    at = min(max(last - start, 0), length) - before
    return [before, max(at, 0), length - before - max(at, 0)]
