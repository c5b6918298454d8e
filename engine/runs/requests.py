"""The prompts of a run: pairs that make directions, and test requests, with their kinds, splits and samples."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.configs.schema import DataConfig
from engine.runs import kinds
from extraction.conversations import with_system
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
    language: str = ""
    condition: str = ""


def under(requests: Sequence[Request], condition: str, number: int) -> list[Request]:
    """Requests as they are asked under a condition; the first to be named has the number 0. "" is no condition."""
    if not condition:
        return list(requests)
    return [replace(request, prompt_id=f"{request.prompt_id}@{number}", condition=condition) for request in requests]


def across_conditions(prompt_id: str) -> str:
    """A request's id whatever the condition that it is asked under."""
    prompt, _, sample = prompt_id.partition("#")
    return "#".join([prompt.partition("@")[0], *([sample] if sample else [])])


def read_prompts(data: DataConfig, seed: int) -> tuple[list[Pair], list[Request]]:
    """The pairs that make directions, and the test requests, with their kinds, split as the configuration says.

    Raises ExtractionError for files that cannot be read, EngineError for a split that they do not allow.
    """
    pairs = take(pairs_of(data, data.train_pairs), data.num_pairs, data.train_pairs)
    sources = {DECLINED: (data.test_requests, data.num_requests), ANSWERABLE: (data.test_answerable, data.num_answerable)}
    asked = [_prompts(*source, data.request_column, data.system) for source in sources.values()]
    if data.hold_out is not None:
        places = kinds.held_out_places(kinds.with_kinds(data.kinds, pairs)[0], data.hold_out)
        pairs = [pair for place, pair in enumerate(pairs) if place not in places]
    pairs, tested = kinds.with_kinds(data.kinds, pairs, *asked)
    seen: frozenset[str] = frozenset()
    if data.split == "kinds":
        seen = kinds.training_kinds(pairs, [prompt.category for prompt in tested[0]], seed)
        pairs = [pair for pair in pairs if pair.category in seen]
    requests = [
        Request(f"{kind}/{index:05d}", split, kind, prompt.category, prompt.text, prompt.language)
        for kind, prompts in zip(sources, tested, strict=True)
        for index, prompt in enumerate(prompts)
        for split in [kinds.SEEN if prompt.category in seen else kinds.TEST]
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


def prompt_of(prompt_id: str) -> str:
    """The prompt of a request, whichever sample it is."""
    return prompt_id.partition("#")[0]


def sample_of(prompt_id: str) -> int:
    """The number of a request's sample; 0 where there is one of each."""
    return int(prompt_id.partition("#")[2] or 0)


def pairs_of(data: DataConfig, source: str) -> list[Pair]:
    """The pairs of a file, under the run's system text."""
    return under_system(load_pairs(source, data.pair_columns), data.system)


def under_system(pairs: Sequence[Pair], system: str | None) -> list[Pair]:
    """Pairs under a system text, which a prompt that brings its own keeps; as they are where it is None."""
    if system is None:
        return list(pairs)
    sides = [(with_system(pair.declined, system), with_system(pair.answered, system)) for pair in pairs]
    return [replace(pair, declined=one, answered=other) for pair, (one, other) in zip(pairs, sides, strict=True)]


def prompts_of(data: DataConfig, source: str) -> list[Prompt]:
    """The prompts of a file, under the run's system text."""
    return list(_prompts(source, None, data.request_column, data.system))


@functools.lru_cache
def _prompts(source: str, count: int | None, column: str | None, system: str | None) -> tuple[Prompt, ...]:
    if count == 0:
        return ()
    listed = take(load_prompts(source, column), count, source)
    return tuple(replace(prompt, text=with_system(prompt.text, system)) for prompt in listed)
