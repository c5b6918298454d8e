"""What is asked of vLLM for each prompt, and what is read of its log-probabilities."""

import hashlib
from collections.abc import Sequence
from typing import Any

from engine.configs.schema import SamplingConfig
from engine.errors import EngineError

SEED_BYTES = 7


def prompt_seed(seed: int, token_ids: Sequence[int]) -> int:
    """A seed of each prompt's own, the same for base and variants.

    With one seed for all, prompts of equal length would draw the same noise, and responses would not be independent.
    """
    digest = hashlib.sha256(f"{seed}:{','.join(map(str, token_ids))}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big")


def sampling_parameters(prompts: Sequence[Sequence[int]], sampling: SamplingConfig, *, logprobs: bool = False) -> Any:
    """vLLM's SamplingParams: one for all where it is greedy, else one each, with the prompt's own seed."""
    from vllm import SamplingParams

    common: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    if logprobs:  # of the token that is taken, before temperature and top_p
        common |= {"logprobs": 0, "flat_logprobs": True}
    if sampling.temperature == 0:
        return SamplingParams(**common)
    return [SamplingParams(**common, seed=prompt_seed(sampling.seed, prompt)) for prompt in prompts]


def logprobs_of(prompt_logprobs: Any, response: Sequence[int]) -> list[float]:
    """The log-probabilities of a sequence's last tokens, of vLLM's flat table: each position lists its own token first.

    Raises EngineError where the table is of other tokens.
    """
    first = [prompt_logprobs.start_indices[place] for place in range(-len(response), 0)]
    if [prompt_logprobs.token_ids[place] for place in first] != list(response):
        raise EngineError("vLLM's log-probabilities are of other tokens than the response's.")
    return [prompt_logprobs.logprobs[place] for place in first]
