"""Residual streams of many prompts at chosen tokens: batch by batch, or kept prompt by prompt.

Batches are exact: no prompt sees another's tokens or any padding (`extraction.prefill`). Only the wanted tokens' vectors
leave a pass, which has no `lm_head`.
"""
# L = decoder blocks, N = prompts, B = prompts of a batch, P = positions, R = response tokens, H = hidden size

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from extraction.devices import devices_of, input_device
from extraction.errors import ExtractionError
from extraction.hooks import ResidualCapture, decoder_blocks, decoder_body, truncated
from extraction.prefill import BATCH_TOKENS, Batch, Prefill, laid_out

GPU_FACTOR = 16  # a GPU is busy with so many times the tokens of a batch that suits a CPU
Offsets = Sequence[int] | Sequence[Sequence[int]]
OnPrompt = Callable[[int], None]
Reduce = Callable[[Tensor], Tensor]


def batches(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    offsets: Offsets,
    on_prompt: OnPrompt = lambda done: None,
    *,
    batch_tokens: int | None = None,
    last_layer: int | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Places of prompts and their residual stream, (L+1, B, P, H) in the model's dtype, batch by batch.

    offsets: of the P wanted tokens, from each prompt's end (-1 is the last): the same for all, or a row for each prompt.
    on_prompt: called with the number of prompts done.
    batch_tokens: tokens of a batch; None for as many as fit.
    last_layer: the pass ends there, and L is that layer.
    Raises ExtractionError for no prompts, and for one that is too short.
    """
    if not prompts:
        raise ExtractionError("No prompts to average; expected at least one.")
    offsets_NP = torch.tensor(offsets).expand(len(prompts), -1)
    back_N = (-offsets_NP).amax(dim=1).tolist()
    short = next((place for place, back in enumerate(back_N) if len(prompts[place]) < back), None)
    if short is not None:
        back = back_N[short]
        raise ExtractionError(
            f"A prompt of {len(prompts[short])} tokens has no position {-back}; expected at least {back} tokens."
        )
    device = input_device(model)
    prefill = _laid_out(model, prompts, max(back_N), batch_tokens)

    def places(batch: Batch) -> tuple[Tensor, None]:
        return batch.last_B[:, None] + 1 + offsets_NP[batch.indices].to(device), None

    with _until(model, last_layer):
        yield from _captured(model, prefill, places, on_prompt)


def collect(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    offsets: Offsets,
    on_prompt: OnPrompt = lambda done: None,
    *,
    batch_tokens: int | None = None,
    last_layer: int | None = None,
) -> Tensor:
    """Every prompt's residual stream, in the prompts' order: (L+1, N, P, H) on the CPU, in the model's dtype.

    Parameters and errors are those of `batches`.
    """
    resid_LNPH: Tensor | None = None
    for indices, part_LBPH in batches(model, prompts, offsets, on_prompt, batch_tokens=batch_tokens, last_layer=last_layer):
        if resid_LNPH is None:
            layers, _, positions, hidden = part_LBPH.shape
            resid_LNPH = torch.empty(layers, len(prompts), positions, hidden, dtype=part_LBPH.dtype)
        resid_LNPH[:, indices] = part_LBPH.cpu()
    assert resid_LNPH is not None
    return resid_LNPH


def response_means(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    on_prompt: OnPrompt = lambda done: None,
) -> Tensor:
    """Mean over each response's tokens of the residual stream, after its prompt: (L+1, N, H) float64.

    Raises ExtractionError for an empty response, which has no mean.
    """
    if empty := [index for index, response in enumerate(responses) if not response]:
        raise ExtractionError(f"Response {empty[0]} is empty ({len(empty)} are), so there is no mean over its tokens.")
    sequences = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    lengths_N = torch.tensor([len(response) for response in responses])
    device = input_device(model)
    prefill = _laid_out(model, sequences, int(lengths_N.max()), None)
    means_LNH = torch.empty(len(decoder_blocks(model)) + 1, len(prompts), _hidden_size(model), dtype=torch.float64)

    def places(batch: Batch) -> tuple[Tensor, Reduce]:
        own_B = lengths_N[batch.indices].to(device)
        back_R = torch.arange(int(own_B.max()), device=device)
        inside_BR1 = (back_R < own_B[:, None])[:, :, None]

        def mean(resid_BRH: Tensor) -> Tensor:
            return (resid_BRH.to(torch.float64) * inside_BR1).sum(dim=1) / own_B[:, None]

        return (batch.last_B[:, None] - back_R).clamp_min(0), mean

    for indices, means_LBH in _captured(model, prefill, places, on_prompt):
        means_LNH[:, indices] = means_LBH.cpu()
    return means_LNH


def padded_means(model: nn.Module, prompts: Sequence[Sequence[int]], pad: int, batch_size: int) -> Tensor:
    """Mean last-token residual stream as naive batches give it, (L+1, H) float64: wrong on purpose, for comparison.

    Prompts in the given order are padded on the left with the token `pad`, and the pads are attended to. Positions are counted
    from the first pad. A tokenized batch without its attention mask does that.
    """
    sums_LH: Any = 0.0
    body, device = decoder_body(model), input_device(model)
    with torch.inference_mode(), ResidualCapture(model) as capture:
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            width = max(map(len, batch))
            token_ids_BT = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in batch], device=device)
            capture.at(torch.full((len(batch), 1), width - 1, device=device))
            body(input_ids=token_ids_BT, use_cache=False)
            sums_LH = sums_LH + capture.read()[:, :, 0].to("cpu", torch.float64).sum(dim=1)
    return sums_LH / len(prompts)


def shares_prefix(model: Any) -> bool:
    """True where prompts may share their common prefix's keys and values and still be what they are alone.

    In 16 bits fused attention takes another kernel behind a cache, which moves directions by up to 1e-3 in cosine. Eager
    attention gives the same bits, and in float32 the difference is 1e-12.
    """
    return model.config._attn_implementation == "eager" or next(model.parameters()).dtype == torch.float32


def _laid_out(model: nn.Module, sequences: Sequence[Sequence[int]], keep: int, batch_tokens: int | None) -> Prefill:
    """Sequences in batches; the last `keep` tokens of each are looked at."""
    looked_at = keep if shares_prefix(model) else max(map(len, sequences))
    size = batch_tokens or tokens_that_fit(model, max(map(len, sequences)))
    return laid_out(model, sequences, size, keep=looked_at)


def tokens_that_fit(model: nn.Module, longest: int) -> int:
    """Number of tokens of a batch: as many as keep the hardware busy, or as a quarter of the free memory holds.

    longest: the longest prompt's tokens.
    A token's share is one block's activations and its row of float32 attention scores in each head (eager attention), beside
    the longest prompt. Raises no error: a single prompt is always a batch.
    """
    config, parameter = decoder_body(model).config, next(model.parameters())
    gpus = [device for device in devices_of(model) if device.type == "cuda"]
    wide = max(4 * config.hidden_size, 3 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size))
    per_token = (wide + 4 * config.hidden_size) * parameter.element_size() + 2 * 4 * config.num_attention_heads * longest
    if gpus:  # the fullest of them decides
        free, busy = min(torch.cuda.mem_get_info(device)[0] for device in gpus), GPU_FACTOR * BATCH_TOKENS
    else:
        free, busy = psutil.virtual_memory().available, BATCH_TOKENS
    return max(min(busy, free // (4 * per_token)), 1)


def _captured(
    model: nn.Module, prefill: Prefill, places: Callable[[Batch], tuple[Tensor, Reduce | None]], on_prompt: OnPrompt
) -> Iterator[tuple[list[int], Tensor]]:
    done = 0
    with ResidualCapture(model) as capture:
        for batch in prefill.passes(decoder_body(model), lambda batch: capture.at(*places(batch))):
            yield batch.indices, capture.read()
            for _ in batch.indices:
                done += 1
                on_prompt(done)


def _until(model: nn.Module, last_layer: int | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if last_layer is None else truncated(model, last_layer)


def _hidden_size(model: Any) -> int:
    return int(decoder_body(model).config.hidden_size)
