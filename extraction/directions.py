"""Difference-in-means directions: mean residual stream of declined minus answered requests, one vector per layer.

The estimator of Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction", at named positions
of the rendered prompt. Takes a model and token ids; knows nothing of files.
"""
# L = decoder blocks, H = hidden size, P = positions, G = groups of prompts

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from extraction.errors import ExtractionError
from extraction.hooks import ResidualCapture, decoder_body
from extraction.positions import LAST
from extraction.rendering import RenderedPair

CONVENTION = "resid_pre"
LAST_TOKEN: Mapping[str, int] = {LAST: -1}


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
    """Directions of every layer at the last token, one prompt at a time; see `extract_at`."""
    return extract_at(model, pairs, LAST_TOKEN, on_prompt=on_prompt).directions[LAST]


def extract_at(
    model: nn.Module,
    pairs: Sequence[RenderedPair],
    positions: Mapping[str, int],
    *,
    seed: int = 0,
    on_prompt: Callable[[int], None] = lambda done: None,
) -> Extraction:
    """Directions of every layer at each position (a name and its offset from the prompt's end), one prompt at a time.

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
) -> Tensor:
    """Means of the residual stream over the prompts of each group, summed in float64: (G, P, L+1, H).

    `groups` names, prompt by prompt, the groups it counts in.
    """
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = {}
    body = decoder_body(model)
    device = next(model.parameters()).device
    with torch.inference_mode(), ResidualCapture(model, offsets) as capture:
        for done, (token_ids, members) in enumerate(zip(prompts, groups, strict=False), 1):
            body(input_ids=torch.tensor([token_ids], device=device), use_cache=False)
            resid_PLH = capture.read().to("cpu", torch.float64).transpose(0, 1)
            for group in members:
                sums[group] = sums[group].add_(resid_PLH) if group in sums else resid_PLH.clone()
                counts[group] = counts.get(group, 0) + 1
            on_prompt(done)
    if not sums:
        raise ExtractionError("No prompts to average; expected at least one.")
    return torch.stack([sums[group] / counts[group] for group in sorted(sums)])


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
