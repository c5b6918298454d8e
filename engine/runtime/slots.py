"""Which slot each variant and strength has, and which slot each token of a pass: the requests' side of the tables.

The engine has as many slots as requests run at once, so a pass never asks for more; a variant keeps its slot until another
needs it. Plain Python, without vLLM.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.runtime.interventions import Intervention, Interventions
from engine.runtime.requests import EVERY, LAST, PROMPT, RESPONSE, Asked

Key = tuple[str, float, float, str]  # variant, alpha, add, site


@dataclass(frozen=True)
class Live:
    """A request under way that asks for an intervention."""

    asked: Asked
    prompt_length: int

    @property
    def key(self) -> Key:
        return self.asked.variant, self.asked.alpha, self.asked.add, self.asked.site


class Slots:
    """Fills `tables` for each pass; `make` builds the intervention that a request asks for, when it first runs."""

    def __init__(self, tables: Interventions, make: Callable[[Asked], Intervention]) -> None:
        self.tables, self.make = tables, make
        self.live: dict[str, Live] = {}
        self.held: dict[Key, int] = {}  # least recently used first

    def begin(self, request: str, asked: Asked | None, prompt_length: int) -> None:
        """A request is under way; one that asks for nothing needs no slot."""
        self.live.pop(request, None)
        if asked is not None:
            self.live[request] = Live(asked, prompt_length)

    def end(self, requests: Iterable[str]) -> None:
        """These requests are over."""
        for request in requests:
            self.live.pop(request, None)

    def forget(self, variant: str) -> None:
        """Slots of a variant are free; its rows have changed, or it is gone."""
        for key in [key for key in self.held if key[0] == variant]:
            del self.held[key]

    def fill(self, requests: Sequence[str], lengths: Sequence[int], computed: Mapping[str, int]) -> None:
        """Name every token's slot for a pass: requests in its order, their tokens in it, and those computed before."""
        steered = {request: self.live[request] for request in requests if request in self.live}
        taken = self._take({live.key: live.asked for live in steered.values()})
        slots: list[int] = []
        numbers: list[int] = []
        for request, length in zip(requests, lengths, strict=True):
            live = steered.get(request)
            if live is None or live.asked.positions == EVERY:
                slots.append(taken[live.key] if live else 0)
                numbers.append(length)
                continue
            parts = _parts(live.asked.positions, computed[request] - live.prompt_length, length)
            slots += [0, taken[live.key], 0]
            numbers += parts
        self.tables.fill(slots, numbers)

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
