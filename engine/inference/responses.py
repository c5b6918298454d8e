"""Responses and their log-probabilities, out of vLLM's finished outputs: of engines that swap and engines that steer."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    ask: Ask, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], on_row: Callable[[], None] = lambda: None
) -> list[float | None]:
    """Mean log-probability (nats a token) of each response after its prompt; None for an empty one."""
    from vllm import SamplingParams

    # One number a token, in flat lists: with text and a table a token this costs nine times as much in this process.
    parameters = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False, flat_logprobs=True)
    scored: list[float | None] = [None] * len(prompts)
    filled = [index for index, response in enumerate(responses) if response]
    sequences = [[*prompts[index], *responses[index]] for index in filled]
    for place, output in ask(sequences, filled, parameters):
        index = filled[place]
        values = last_logprobs(output.prompt_logprobs, responses[index])
        scored[index] = sum(values) / len(values)
        on_row()
    return scored
