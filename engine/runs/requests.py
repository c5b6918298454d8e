"""The prompts of a run: pairs that make directions, and test requests, with their kinds, splits and samples."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.configs.schema import DataConfig
from engine.runs import kinds
from extraction.prompts import Pair, Prompt, load_pairs, load_prompts, take

DECLINED, ANSWERABLE = "declined", "answerable"


@dataclass(frozen=True)
class Request:
    """One prompt of the evaluation: `kind` says whether the base is expected to decline it."""

    prompt_id: str
    split: str
    kind: str
    category: str
    text: str


def read_prompts(data: DataConfig, seed: int) -> tuple[list[Pair], list[Request]]:
    """The pairs that make directions, and the test requests, with their kinds, split as the configuration says.

    Raises ExtractionError for files that cannot be read, EngineError for a split that they do not allow.
    """
    pairs = take(load_pairs(data.train_pairs, data.pair_columns), data.num_pairs, data.train_pairs)
    sources = {DECLINED: (data.test_requests, data.num_requests), ANSWERABLE: (data.test_answerable, data.num_answerable)}
    asked = [_prompts(*source, data.request_column) for source in sources.values()]
    if data.hold_out is not None:
        places = kinds.held_out_places(kinds.with_kinds(data.kinds, pairs)[0], data.hold_out)
        pairs = [pair for place, pair in enumerate(pairs) if place not in places]
    pairs, tested = kinds.with_kinds(data.kinds, pairs, *asked)
    seen: frozenset[str] = frozenset()
    if data.split == "kinds":
        seen = kinds.training_kinds(pairs, [prompt.category for prompt in tested[0]], seed)
        pairs = [pair for pair in pairs if pair.category in seen]
    requests = [
        Request(f"{kind}/{index:05d}", kinds.SEEN if prompt.category in seen else kinds.TEST, kind, prompt.category, prompt.text)
        for kind, prompts in zip(sources, tested, strict=True)
        for index, prompt in enumerate(prompts)
    ]
    return pairs, requests


def sampled(requests: Sequence[Request], samples: int) -> list[Request]:
    """Each request once for each sample. A request that names no kind is the kind of its own samples."""
    if samples == 1:
        return list(requests)
    return [
        replace(request, prompt_id=f"{request.prompt_id}#{number}", category=request.category or request.prompt_id)
        for request in requests
        for number in range(samples)
    ]


def sample_of(prompt_id: str) -> int:
    """The number of a request's sample; 0 where there is one of each."""
    return int(prompt_id.partition("#")[2] or 0)


@functools.lru_cache
def _prompts(source: str, count: int | None, column: str | None) -> tuple[Prompt, ...]:
    return () if count == 0 else tuple(take(load_prompts(source, column), count, source))
