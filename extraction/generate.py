"""Greedy generation with transformers, in left-padded batches whose pads no token attends to.

The slow, plain path: interventions by hooks work here, and the fast path is compared with it.
"""

from collections.abc import Sequence
from typing import Any

import torch

from extraction.devices import input_device

BATCH = 32


def greedy(model: Any, prompts: Sequence[Sequence[int]], max_tokens: int, batch_size: int = BATCH) -> list[list[int]]:
    """New token ids for each prompt, up to the end-of-sequence token and without it.

    max_tokens: of a response, at most.
    batch_size: prompts at a time.
    """
    from transformers import GenerationConfig

    stops = model.generation_config.eos_token_id
    stop_ids = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
    config = GenerationConfig(do_sample=False, max_new_tokens=max_tokens, eos_token_id=stop_ids or None, pad_token_id=0)
    responses: list[list[int]] = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        width = max(len(prompt) for prompt in batch)
        device = input_device(model)
        token_ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in batch], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch], device=device)
        with torch.inference_mode():
            output = model.generate(input_ids=token_ids, attention_mask=mask, generation_config=config)
        responses += [_until(row[width:].tolist(), stop_ids) for row in output]
    return responses


def _until(token_ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    return next((token_ids[:place] for place, token in enumerate(token_ids) if token in stop_ids), token_ids)
