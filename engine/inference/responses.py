"""Responses and their log-probabilities, out of vLLM's finished outputs: of engines that swap and engines that steer."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.vllm_compat import last_logprobs

Ask = Callable[[list[list[int]], list[int], Any], Iterable[tuple[int, Any]]]
"""Token sequences, the prompts' places and sampling parameters in; each sequence's place and vLLM's output back."""


@dataclass(frozen=True)
class Generation:
    """One finished response; `index` is the prompt's place in the call, `finish_reason` vLLM's (stop, length).

    `mean_logprob` is the response's mean log-probability (nats a token) under the model that wrote it, where it was asked for.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str
    mean_logprob: float | None = None


def generations(
    outputs: Iterable[tuple[int, Any]], *, logprobs: bool, places: Sequence[Mapping[int, int]] | None = None
) -> Iterator[Generation]:
    """The generations of each output, as they come: one, or those of its samples that have a place.

    places: for each request, the generation's index by its sample's number; None where each request is one response.
    """
    for index, output in outputs:
        own = {0: index} if places is None else places[index]
        for number, response in enumerate(output.outputs):
            if number in own:
                total, count = response.cumulative_logprob, len(response.token_ids)
                mean = float(total) / count if logprobs and count else None
                yield Generation(own[number], response.text, list(response.token_ids), str(response.finish_reason), mean)


def teacher_forced(
    ask: Ask,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    on_row: Callable[[], None] = lambda: None,
    *,
    shared: bool = False,
) -> list[float | None]:
    """Mean log-probability (nats a token) of each response after its prompt; None for an empty one.

    shared: keys and values of prompts are taken from the engine's cache where it has them. Numbers may then differ in their last
    digits with what was asked before.
    """
    scored: list[float | None] = [None] * len(prompts)
    left = [index for index, response in enumerate(responses) if response]
    for sharing in [True, False] if shared else [False]:
        left = _read(ask, prompts, responses, left, scored, on_row, sharing=sharing)
    return scored


def _read(
    ask: Ask,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    wanted: Sequence[int],
    scored: list[float | None],
    on_row: Callable[[], None],
    *,
    sharing: bool,
) -> list[int]:
    """Fill in the scores of the wanted places; those whose responses were in the cache too, and so were not read, come back."""
    from vllm import SamplingParams

    # One number a token, in flat lists: with text and a table a token this costs nine times as much in this process.
    form: Any = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "detokenize": False, "flat_logprobs": True}
    parameters = SamplingParams(**form, skip_reading_prefix_cache=not sharing)
    unread = []
    for place, output in ask([[*prompts[index], *responses[index]] for index in wanted], list(wanted), parameters):
        index = wanted[place]
        if sharing and (output.num_cached_tokens or 0) >= len(prompts[index]):
            unread.append(index)  # the first token is predicted behind the prompt's last, which has to be computed
            continue
        values = last_logprobs(output.prompt_logprobs, responses[index])
        scored[index] = sum(values) / len(values)
        on_row()
    return sorted(unread)


def opening_shares(ask: Ask, prompts: Sequence[Sequence[int]], tokens: Collection[int], likeliest: int) -> list[float]:
    """The probability that each answer begins with one of `tokens`, as far as they are among the `likeliest` first tokens."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=1, temperature=0, logprobs=likeliest, detokenize=False)
    shares = [0.0] * len(prompts)
    for place, output in ask([list(prompt) for prompt in prompts], list(range(len(prompts))), parameters):
        (first,) = output.outputs[0].logprobs
        shares[place] = sum(math.exp(entry.logprob) for token, entry in first.items() if token in tokens)
    return shares
