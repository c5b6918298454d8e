"""Batched extraction against one prompt at a time: the same prompts, the same model, in turns; and how far the two agree."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.configs.schema import RunConfig
from engine.environment import describe
from engine.rollout.directions import transformers_model
from engine.runs.of_config import model_name
from engine.runs.session import Session
from extraction.directions import group_means
from extraction.hooks import ResidualCapture, decoder_body


def bench_extract(config: RunConfig, rounds: int) -> dict[str, Any]:
    """Seconds of both ways over the training pairs, and the lowest cosine between their directions over layers."""
    session = Session(config)
    pairs = session.rendered_pairs()
    prompts = [ids for pair in pairs for ids in (pair.declined, pair.answered)]
    sides = [(place % 2,) for place in range(len(prompts))]
    model = transformers_model(session)
    group_means(model, prompts[:8], sides[:8], [-1])  # warms both ways up
    seconds: dict[str, list[float]] = {"one_by_one": [], "batched": []}
    means: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name, work in (("one_by_one", one_by_one), ("batched", batched)):
            started = time.monotonic()
            means[name] = work(model, prompts, sides)
            seconds[name].append(time.monotonic() - started)
    cosines = cosine_by_layer(means["one_by_one"], means["batched"])
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "speedup_over_one_by_one": round(middle["one_by_one"] / middle["batched"], 2),
        "min_cosine": float(cosines[1:].min()),  # layer 0 has no direction at the last token
        "one_by_one_seconds": [round(value, 2) for value in seconds["one_by_one"]],
        "batched_seconds": [round(value, 2) for value in seconds["batched"]],
        "prompts": len(prompts),
        "tokens": sum(map(len, prompts)),
        "dtype": session.config.model.dtype,
        "model": model_name(config, session.base_hash),
        **describe(),
    }


def batched(model: Any, prompts: Sequence[Sequence[int]], sides: Sequence[tuple[int]]) -> Tensor:
    """Mean last-token residual stream of both sides, (2, L+1, H)."""
    return group_means(model, prompts, sides, [-1])[:, 0]


def one_by_one(model: Any, prompts: Sequence[Sequence[int]], sides: Sequence[tuple[int]]) -> Tensor:
    """Directions by one forward pass a prompt, nothing shared and nothing padded: the reference."""
    sums: list[Any] = [0.0, 0.0]
    body, device = decoder_body(model), next(model.parameters()).device
    with torch.inference_mode(), ResidualCapture(model) as capture:
        for token_ids, (side,) in zip(prompts, sides, strict=True):
            capture.at(torch.tensor([[len(token_ids) - 1]], device=device))
            body(input_ids=torch.tensor([list(token_ids)], device=device), use_cache=False)
            sums[side] = sums[side] + capture.read()[:, 0, 0].to("cpu", torch.float64)
    counts = [sum(side == (number,) for side in sides) for number in (0, 1)]
    return torch.stack([total / count for total, count in zip(sums, counts, strict=True)])


def cosine_by_layer(first_2LH: Tensor, second_2LH: Tensor) -> Tensor:
    """Cosine between the directions (one side less the other) of two extractions, (L+1,)."""
    return torch.nn.functional.cosine_similarity(first_2LH[0] - first_2LH[1], second_2LH[0] - second_2LH[1], dim=-1)
