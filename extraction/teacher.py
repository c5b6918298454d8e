"""Teacher forcing: a model's probabilities, token by token, of responses that are given."""
# R = tokens of a response, V = vocabulary

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from extraction.prefill import BATCH_TOKENS, laid_out
from extraction.residuals import shares_prefix
from extraction.screening import kl_divergence


def response_logits(
    model: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS
) -> Iterator[tuple[int, Tensor]]:
    """Place and logits (R, V) of every response that is not empty; row t predicts its token t.

    Responses come in the order of their length with the prompt.
    """
    filled = [index for index, response in enumerate(responses) if response]
    if not filled:
        return
    lengths = [len(responses[index]) for index in filled]
    sequences = [[*prompts[index], *responses[index]] for index in filled]
    keep = max(lengths) + 1 if shares_prefix(model) else max(map(len, sequences))
    prefill = laid_out(model, sequences, batch_tokens, keep=keep)
    for place, logits_RV in prefill.logits_of_last(model, lengths):
        yield filled[place], logits_RV


def mean_logprobs(model: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float | None]:
    """Mean log-probability (nats a token) of each response after its prompt; None for an empty one."""
    found: list[float | None] = [None] * len(prompts)
    for index, logits_RV in response_logits(model, prompts, responses):
        tokens_R = torch.tensor(responses[index], device=logits_RV.device)
        logprobs_RV = logits_RV.float().log_softmax(-1)
        found[index] = float(logprobs_RV.gather(-1, tokens_R[:, None]).mean())
    return found


def response_divergence(
    model: Any,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    change: Callable[[], None],
    restore: Callable[[], None],
    *,
    at_once: int = 16,
) -> Iterator[tuple[int, Tensor]]:
    """Place and KL(base || changed) of every next-token distribution along each response, nats, float64: (R,).

    model: the base now, and again after `restore`; `change` turns it into the other one.
    at_once: responses whose log-probabilities are in memory, in float32.
    Exact over the whole vocabulary.
    """
    for start in range(0, len(prompts), at_once):
        part = slice(start, start + at_once)
        base = {
            index: logits_RV.float().log_softmax(-1)
            for index, logits_RV in response_logits(model, prompts[part], responses[part])
        }
        change()
        try:
            for index, logits_RV in response_logits(model, prompts[part], responses[part]):
                yield start + index, kl_divergence(base[index], logits_RV)
        finally:
            restore()
