"""Difference-in-means directions: mean residual stream of declined minus answered requests, one vector per layer.

The estimator of Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction", at named positions
of the rendered prompt. Takes a model and token ids; knows nothing of files.
"""
# L = decoder blocks, H = hidden size, P = positions, G = groups of prompts, N = prompts, B = prompts of a batch

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from extraction.errors import ExtractionError
from extraction.hooks import ResidualCapture, decoder_body
from extraction.positions import LAST
from extraction.prefill import BATCH_TOKENS, Prefill
from extraction.rendering import RenderedPair

CONVENTION = "resid_pre"
LAST_TOKEN: Mapping[str, int] = {LAST: -1}
GPU_FACTOR = 16  # a GPU is busy with so many times the tokens of a batch that suits a CPU


@dataclass(frozen=True)
class Directions:
    """Mean residual streams, float64, (L+1, H); row l is the stream that enters block l, row L what leaves the last."""

    declined_mean_LH: Tensor
    answered_mean_LH: Tensor
    num_pairs: int
    position: str = LAST

    @property
    def mean_difference_LH(self) -> Tensor:
        """Declined minus answered, not normalised."""
        return self.declined_mean_LH - self.answered_mean_LH

    @property
    def norms_L(self) -> Tensor:
        """Euclidean norm of each layer's direction."""
        return self.mean_difference_LH.norm(dim=-1)


@dataclass(frozen=True)
class Extraction:
    """Directions by position, and those of the same prompts under shuffled labels: what no difference looks like."""

    directions: dict[str, Directions]
    shuffled: dict[str, Directions]


def extract_directions(
    model: nn.Module, pairs: Sequence[RenderedPair], on_prompt: Callable[[int], None] = lambda done: None
) -> Directions:
    """Directions of every layer at the last token; see `extract_at`."""
    return extract_at(model, pairs, LAST_TOKEN, on_prompt=on_prompt).directions[LAST]


def extract_at(
    model: nn.Module,
    pairs: Sequence[RenderedPair],
    positions: Mapping[str, int],
    *,
    seed: int = 0,
    on_prompt: Callable[[int], None] = lambda done: None,
) -> Extraction:
    """Directions of every layer at each position (a name and its offset from the prompt's end).

    `on_prompt` is told how many of the 2 N prompts are done. Shuffled labels swap the sides of half of the pairs, drawn
    by `seed`. Memory does not grow with the number of pairs.
    """
    if not pairs:
        raise ExtractionError("No pairs to extract from; expected at least one.")
    swapped = set(random.Random(seed).sample(range(len(pairs)), len(pairs) // 2))
    prompts = [pair.declined for pair in pairs] + [pair.answered for pair in pairs]
    true_side = [0] * len(pairs) + [1] * len(pairs)
    groups = [(side, 2 + (side ^ (place % len(pairs) in swapped))) for place, side in enumerate(true_side)]
    means_GPLH = group_means(model, prompts, groups, list(positions.values()), on_prompt)
    named = [(name, means_GPLH[:, place]) for place, name in enumerate(positions)]
    return Extraction(
        {name: Directions(means[0], means[1], len(pairs), name) for name, means in named},
        {name: Directions(means[2], means[3], len(pairs), name) for name, means in named},
    )


def mean_residual(
    model: nn.Module, prompts: Iterable[Sequence[int]], on_prompt: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Mean over prompts of the last token's residual stream, summed in float64: (L+1, H)."""
    return group_means(model, prompts, itertools.repeat((0,)), [-1], on_prompt)[0, 0]


def group_means(
    model: nn.Module,
    prompts: Iterable[Sequence[int]],
    groups: Iterable[Sequence[int]],
    offsets: Sequence[int],
    on_prompt: Callable[[int], None] = lambda done: None,
    *,
    batch_tokens: int | None = None,
) -> Tensor:
    """Means of the residual stream over the prompts of each group, summed in float64: (G, P, L+1, H).

    `groups` names, prompt by prompt, the groups it counts in. Prompts run in batches of at most `batch_tokens` tokens, of which
    no prompt sees another's or any padding (`extraction.prefill`): the means are those of one prompt at a time, to rounding.
    """
    listed, keep = list(prompts), max(-offset for offset in offsets)
    members = list(itertools.islice(groups, len(listed)))
    if not listed:
        raise ExtractionError("No prompts to average; expected at least one.")
    if (shortest := min(map(len, listed))) < keep:
        raise ExtractionError(f"A prompt of {shortest} tokens has no position {-keep}; expected at least {keep} tokens.")
    device = next(model.parameters()).device
    looked_at = keep if shares_prefix(model) else max(map(len, listed))
    size = batch_tokens or BATCH_TOKENS * (GPU_FACTOR if device.type == "cuda" else 1)
    prefill = Prefill(listed, device, size, keep=looked_at)
    counts_GN = torch.zeros(1 + max(map(max, members)), len(listed), dtype=torch.float64)
    for place, own in enumerate(members):
        counts_GN[list(own), place] = 1
    offsets_P, done = torch.tensor(offsets, device=device), 0
    sums_GPLH: Any = 0.0
    with ResidualCapture(model) as capture:
        for batch in prefill.passes(decoder_body(model), lambda batch: capture.at(batch.last_B[:, None] + 1 + offsets_P)):
            resid_LBPH = capture.read().to("cpu", torch.float64)
            sums_GPLH = sums_GPLH + torch.einsum("gb,lbph->gplh", counts_GN[:, batch.indices], resid_LBPH)
            for _ in batch.indices:
                done += 1
                on_prompt(done)
    return sums_GPLH / counts_GN.sum(dim=1)[:, None, None, None]


def shares_prefix(model: Any) -> bool:
    """Whether prompts may share their common prefix's keys and values and still be what they are alone.

    In 16 bits fused attention takes another kernel behind a cache, which moves directions by up to 1e-3 in cosine; eager
    attention gives the same bits, and in float32 the difference is 1e-12.
    """
    return model.config._attn_implementation == "eager" or next(model.parameters()).dtype == torch.float32


def unit_directions(directions: Directions, layers: Sequence[int]) -> Tensor:
    """The named layers' directions at unit length, (len(layers), H) float64.

    Raises ExtractionError for a layer outside 0..L, one named twice, or one whose direction is zero or not finite (layer
    0 at the last token: that token is the same for every prompt).
    """
    last = directions.mean_difference_LH.shape[0] - 1
    for layer in layers:
        if not 0 <= layer <= last:
            raise ExtractionError(
                f"Layer {layer} is out of range: the model has layers 0 to {last} (resid_pre; {last} is its output)."
            )
        if layers.count(layer) > 1:
            raise ExtractionError(f"Layer {layer} is named more than once.")
    chosen = directions.mean_difference_LH[list(layers)]
    norms = directions.norms_L[list(layers)]
    scale = directions.answered_mean_LH[list(layers)].norm(dim=-1)
    for layer, norm, size in zip(layers, norms.tolist(), scale.tolist(), strict=True):
        if not norm > 1e-9 * size:
            raise ExtractionError(
                f"Layer {layer} has no direction: the declined and answered means differ by {norm:g}. "
                "At layer 0 the last token is the same for every prompt; choose a later layer."
            )
    return chosen / norms[:, None]
