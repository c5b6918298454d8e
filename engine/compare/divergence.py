"""KL(base || variant) along whole responses, in the engine that generates: the base samples, and both read what it sampled.

For y drawn from the base at temperature 1, log p_base(y_t) - log p_variant(y_t) has the token's KL as its mean. The ratio
r = p_variant / p_base has mean 1 whatever the variant, so r - 1 is a control variate: its coefficient is fitted over all tokens
(Owen 2013, 8.9), and is near 1 where the models are close and near 0 where r has a heavy tail. No vocabulary leaves the engine: a
number a token does.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine.runs.schemas import Row
from engine.vllm_compat import last_logprobs

if TYPE_CHECKING:
    from engine.inference.replica import Replica

LARGEST = 20.0  # nats: the ratio is cut there, far beyond what the coefficient lets count
KL_SCHEMA = pa.schema(
    [
        ("variant_hash", pa.string()),
        ("prompt_id", pa.string()),
        ("category", pa.string()),
        ("tokens", pa.int32()),
        ("per_token", pa.float64()),
        ("per_response", pa.float64()),
        ("first_token", pa.float64()),
    ]
)


def token_logprobs(
    replica: "Replica",
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    on_row: Callable[[], None] = lambda: None,
) -> list[list[float]]:
    """The current variant's log-probability of every token of each response after its prompt, nats."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False, flat_logprobs=True)
    found: list[list[float]] = [[] for _ in prompts]
    sequences = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    for place, output in replica.outputs(sequences, parameters):
        found[place] = last_logprobs(output.prompt_logprobs, responses[place])
        on_row()
    return found


def coefficient(base: Sequence[Sequence[float]], own: Sequence[Sequence[float]]) -> float:
    """What r - 1 is multiplied by, of all tokens: the value from 0 to 1 that leaves the least variance."""
    logs = [other - one for pair in zip(base, own, strict=True) for one, other in zip(*pair, strict=True)]
    if len(logs) < 2:
        return 0.0
    logs_N = np.asarray(logs)
    ratios_N = np.expm1(np.minimum(logs_N, LARGEST))
    spread = float(ratios_N.var())
    return float(np.clip(np.mean((logs_N - logs_N.mean()) * (ratios_N - ratios_N.mean())) / spread, 0, 1)) if spread > 0 else 0.0


def divergence(base: Sequence[float], own: Sequence[float], weight: float) -> dict[str, Any]:
    """A response's divergence from both models' log-probabilities of its tokens: a token's mean, the sum, and the first's."""
    terms = [one - other + weight * math.expm1(min(other - one, LARGEST)) for one, other in zip(base, own, strict=True)]
    return {"tokens": len(terms), "per_token": sum(terms) / len(terms), "per_response": sum(terms), "first_token": terms[0]}


def rows_of(
    variant_hash: str, asked: Sequence[Row], base: Sequence[Sequence[float]], own: Sequence[Sequence[float]]
) -> list[Row]:
    """A row a response for KL_SCHEMA; `asked` are the base's sampled rows."""
    weight = coefficient(base, own)
    return [
        {
            "variant_hash": variant_hash,
            "prompt_id": row["prompt_id"],
            "category": row["category"],
            **divergence(one, other, weight),
        }
        for row, one, other in zip(asked, base, own, strict=True)
    ]
