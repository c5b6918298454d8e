"""vLLM's sampling parameters for each prompt."""

import hashlib
from collections.abc import Sequence
from typing import Any

from engine.configs.schema import SamplingConfig

SEED_BYTES = 7


def prompt_seed(seed: int, token_ids: Sequence[int], sample: int = 0) -> int:
    """A seed of each prompt's and sample's own, the same for base and variants.

    With one seed for all, prompts of equal length would draw the same noise, and responses would not be independent.
    """
    drawn = f"#{sample}" if sample else ""
    digest = hashlib.sha256(f"{seed}{drawn}:{','.join(map(str, token_ids))}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big")


def sampling_parameters(
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    logprobs: bool = False,
    samples: Sequence[int] | None = None,
) -> Any:
    """vLLM's SamplingParams: one for all where it is greedy, else one each, with the seed of the prompt and its sample.

    samples: the number of each prompt's sample; None for the first of each.
    """
    from vllm import SamplingParams

    common: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    if logprobs:  # of the token that is taken, before temperature and top_p
        common |= {"logprobs": 0, "flat_logprobs": True}
    if sampling.temperature == 0:
        return SamplingParams(**common)
    numbers = [0] * len(prompts) if samples is None else samples
    return [
        SamplingParams(**common, seed=prompt_seed(sampling.seed, prompt, number))
        for prompt, number in zip(prompts, numbers, strict=True)
    ]
