"""vLLM's sampling parameters for each prompt, and a prompt's samples as one request."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.configs.schema import SamplingConfig

SEED_BYTES = 7


def prompt_seed(seed: int, token_ids: Sequence[int]) -> int:
    """A seed of each prompt's own, the same for base and variants; vLLM adds the sample's number to it.

    With one seed for all, prompts of equal length would draw the same noise, and responses would not be independent.
    """
    digest = hashlib.sha256(f"{seed}:{','.join(map(str, token_ids))}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big")


@dataclass(frozen=True)
class Joined:
    """Requests to an engine: each prompt once for all of its samples.

    places: for each request, the place in the call of each wanted sample, by the sample's number.
    """

    prompts: list[Sequence[int]]
    places: list[dict[int, int]]

    @property
    def counts(self) -> list[int]:
        """How many samples each request takes: up to the last that is wanted, since a sample's number is its seed."""
        return [1 + max(numbers) for numbers in self.places]


def joined(prompts: Sequence[Sequence[int]], samples: Sequence[int] | None = None) -> Joined:
    """Neighbours that are samples of one prompt, in ascending order, as one request.

    samples: the number of each prompt's sample; None for one of each.
    """
    found = Joined([], [])
    numbers = [0] * len(prompts) if samples is None else samples
    for place, (prompt, number) in enumerate(zip(prompts, numbers, strict=True)):
        if found.places and number > max(found.places[-1]) and list(prompt) == list(found.prompts[-1]):
            found.places[-1][number] = place
        else:
            found.prompts.append(prompt)
            found.places.append({number: place})
    return found


def sampling_parameters(
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    logprobs: bool = False,
    counts: Sequence[int] | None = None,
) -> Any:
    """vLLM's SamplingParams: one for all where it is greedy, else one each, with the seed of the prompt.

    counts: the samples of each prompt; None for one of each.
    """
    from vllm import SamplingParams

    common: Mapping[str, Any] = {
        **{"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens},
        **({} if sampling.thinking_tokens is None else {"thinking_token_budget": sampling.thinking_tokens}),
        **({"logprobs": 0, "flat_logprobs": True} if logprobs else {}),  # of the token taken, before temperature and top_p
    }
    if sampling.temperature == 0:
        return SamplingParams(**common)
    return [
        SamplingParams(**common, seed=prompt_seed(sampling.seed, prompt), n=count)
        for prompt, count in zip(prompts, counts or [1] * len(prompts), strict=True)
    ]
