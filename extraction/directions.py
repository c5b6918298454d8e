"""Difference-in-means directions: mean residual stream of declined minus answered requests, one vector per layer.

The estimator of Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction", at named positions
of the rendered prompt. Takes a model and token ids; knows nothing of files.
"""
# L = decoder blocks, H = hidden size, P = positions, G = groups of prompts, N = prompts, B = prompts of a batch

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from extraction.controls import RANDOM, Control, as_long, random_weights, swapped_places
from extraction.errors import ExtractionError
from extraction.estimators import estimate
from extraction.finite import check_finite
from extraction.positions import LAST, offsets_of
from extraction.rendering import RenderedPair
from extraction.residuals import Offsets, batches

CONVENTION = "resid_pre"
MEAN_DIFFERENCE = "mean_difference"
LAST_TOKEN: Mapping[str, int] = {LAST: -1}


@dataclass(frozen=True)
class Directions:
    """Mean residual streams of declined and answered prompts, float64 (L+1, H), and the directions between them.

    Row l is the stream that enters block l; row L is what leaves the last block.
    """

    declined_mean_LH: Tensor
    answered_mean_LH: Tensor
    num_pairs: int
    position: str = LAST
    estimator: str = MEAN_DIFFERENCE
    estimated_LH: Tensor | None = None
    """Another estimator's unit directions; None where the mean difference is meant."""

    @property
    def mean_difference_LH(self) -> Tensor:
        """Declined minus answered, not normalised."""
        return self.declined_mean_LH - self.answered_mean_LH

    @property
    def direction_LH(self) -> Tensor:
        """The directions to remove: the estimator's, or the mean differences, not normalised."""
        return self.mean_difference_LH if self.estimated_LH is None else self.estimated_LH

    @property
    def steering_LH(self) -> Tensor:
        """The vectors to add to induce refusal: the mean differences, or their part along the estimator's directions."""
        if self.estimated_LH is None:
            return self.mean_difference_LH
        return (self.mean_difference_LH * self.estimated_LH).sum(dim=-1, keepdim=True) * self.estimated_LH

    @property
    def norms_L(self) -> Tensor:
        """Euclidean norm of each layer's mean difference."""
        return self.mean_difference_LH.norm(dim=-1)


@dataclass(frozen=True)
class Streams:
    """Both sides' residual streams at one position, pair by pair, each (L+1, N, H) in any dtype."""

    declined_LNH: Tensor
    answered_LNH: Tensor

    @property
    def num_pairs(self) -> int:
        return self.declined_LNH.shape[1]

    def differences(self, layer: int) -> Tensor:
        """Declined minus answered of every pair, (N, H) float64."""
        return self.declined_LNH[layer].double() - self.answered_LNH[layer].double()

    def swapped(self, places: Sequence[int]) -> "Streams":
        """A copy with the sides of the pairs at `places` exchanged."""
        sides = self.declined_LNH.clone(), self.answered_LNH.clone()
        sides[0][:, places], sides[1][:, places] = self.answered_LNH[:, places], self.declined_LNH[:, places]
        return Streams(*sides)


@dataclass(frozen=True)
class Extraction:
    """Directions by position, and those of each control by its name: what directions look like that mean nothing."""

    directions: dict[str, Directions]
    controls: dict[str, dict[str, Directions]]


def extract_directions(
    model: nn.Module, pairs: Sequence[RenderedPair], on_prompt: Callable[[int], None] = lambda done: None
) -> Directions:
    """Directions of every layer at the last token; see `extract_at`.

    on_prompt: called with the number of prompts done.
    """
    return extract_at(model, pairs, LAST_TOKEN, on_prompt=on_prompt).directions[LAST]


def extract_at(
    model: nn.Module,
    pairs: Sequence[RenderedPair],
    positions: Mapping[str, int],
    *,
    controls: Sequence[Control] = (),
    kinds: Sequence[str] | None = None,
    on_prompt: Callable[[int], None] = lambda done: None,
) -> Extraction:
    """Directions of every layer at each position, with those of the controls, in one pass over the prompts.

    positions: names, each with its offset from a plain prompt's end; conversations know their own.
    kinds: of the pairs; shuffled labels exchange the sides of whole kinds.
    on_prompt: called with the number of the 2 N prompts done.
    Memory does not grow with the number of pairs. Raises ExtractionError where there are none.
    """
    if not pairs:
        raise ExtractionError("No pairs to extract from; expected at least one.")
    count = len(pairs)
    prompts = [pair.declined for pair in pairs] + [pair.answered for pair in pairs]
    sides_GN = torch.zeros(2, 2 * count, dtype=torch.float64)
    sides_GN[0, :count], sides_GN[1, count:] = 1.0, 1.0
    rows = [sides_GN, *(control_weights(control, sides_GN, kinds or [""] * count) for control in controls)]
    sums_GPLH = weighted_sums(model, prompts, torch.cat(rows), offsets_of(positions, prompts), on_prompt)
    split = sums_GPLH.split([len(weights_GN) for weights_GN in rows])
    parts = dict(zip(["", *(control.name for control in controls)], split, strict=True))
    directions = {
        name: Directions(parts[""][0, place] / count, parts[""][1, place] / count, count, name)
        for place, name in enumerate(positions)
    }
    found = {
        control.name: {
            name: control_from_sums(parts[control.name][:, place], directions[name]) for place, name in enumerate(positions)
        }
        for control in controls
    }
    return Extraction(directions, found)


def control_weights(control: Control, sides_GN: Tensor, kinds: Sequence[str]) -> Tensor:
    """The weights of the 2 N prompts that make a control: of two means for shuffled labels, of one sum for a random one."""
    count = sides_GN.shape[1] // 2
    if control.kind == RANDOM:
        return random_weights(count, control)[None]
    places = torch.tensor(swapped_places(kinds, control), dtype=torch.long)
    swapped_GN = sides_GN.clone()
    for columns in (places, places + count):
        swapped_GN[:, columns] = 1 - swapped_GN[:, columns]
    return swapped_GN


def control_from_sums(sums_GLH: Tensor, true: Directions) -> Directions:
    """A control's directions: of two sides' sums, or of one random sum at the true difference's length."""
    if len(sums_GLH) == 2:
        return Directions(sums_GLH[0] / true.num_pairs, sums_GLH[1] / true.num_pairs, true.num_pairs, true.position)
    drawn_LH = as_long(sums_GLH[0], true.mean_difference_LH)
    return Directions(true.answered_mean_LH + drawn_LH, true.answered_mean_LH, true.num_pairs, true.position)


def directions_from(streams: Streams, position: str, estimator: str = MEAN_DIFFERENCE) -> Directions:
    """Directions from streams at hand, by an estimator of `extraction.estimators`."""
    means = [side.double().mean(dim=1) for side in (streams.declined_LNH, streams.answered_LNH)]
    estimated = None if estimator == MEAN_DIFFERENCE else estimate(estimator, streams.declined_LNH, streams.answered_LNH)
    return Directions(means[0], means[1], streams.num_pairs, position, estimator, estimated)


def mean_residual(
    model: nn.Module, prompts: Iterable[Sequence[int]], on_prompt: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Mean over prompts of the last token's residual stream, summed in float64: (L+1, H)."""
    return group_means(model, prompts, itertools.repeat((0,)), [-1], on_prompt)[0, 0]


def group_means(
    model: nn.Module,
    prompts: Iterable[Sequence[int]],
    groups: Iterable[Sequence[int]],
    offsets: Offsets,
    on_prompt: Callable[[int], None] = lambda done: None,
    *,
    batch_tokens: int | None = None,
) -> Tensor:
    """Means of the residual stream over the prompts of each group, summed in float64: (G, P, L+1, H).

    groups: for each prompt, the groups it counts in.
    offsets: of the wanted tokens, from each prompt's end: the same for all, or a row for each prompt.
    batch_tokens: tokens of a batch; None for as many as fit (`extraction.residuals.tokens_that_fit`).
    The means are those of one prompt at a time, to rounding: see `extraction.residuals.batches`. Prompts are added in one
    order, whatever the batches. So the size of a batch, which depends on free memory, changes no bit of a sum.
    """
    listed = list(prompts)
    members = list(itertools.islice(groups, len(listed)))
    counts_GN = torch.zeros(1 + max(map(max, members), default=0), len(listed), dtype=torch.float64)
    for place, own in enumerate(members):
        counts_GN[list(own), place] = 1
    sums_GPLH = weighted_sums(model, listed, counts_GN, offsets, on_prompt, batch_tokens=batch_tokens)
    return sums_GPLH / counts_GN.sum(dim=1)[:, None, None, None]


def weighted_sums(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    weights_GN: Tensor,
    offsets: Offsets,
    on_prompt: Callable[[int], None] = lambda done: None,
    *,
    batch_tokens: int | None = None,
) -> Tensor:
    """Sums of the residual stream over prompts with each row of weights, in float64: (G, P, L+1, H); see `group_means`.

    Raises ExtractionError for a stream that is not finite, before the next batch.
    """
    sums_GPLH: Any = 0.0
    for indices, resid_LBPH in batches(model, prompts, offsets, on_prompt, batch_tokens=batch_tokens):
        check_finite(model, resid_LBPH)
        of_batch_BPLH = resid_LBPH.to("cpu", torch.float64).permute(1, 2, 0, 3)
        for place, resid_PLH in zip(indices, of_batch_BPLH, strict=True):
            sums_GPLH = sums_GPLH + weights_GN[:, place, None, None, None] * resid_PLH
    return torch.as_tensor(sums_GPLH)


def unit_rows(vectors_LH: Tensor) -> Tensor:
    """Every row at unit length, float64; a row of zeros stays."""
    vectors_LH = vectors_LH.double()
    return vectors_LH / vectors_LH.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def unit_directions(directions: Directions, layers: Sequence[int]) -> Tensor:
    """The named layers' directions at unit length, (len(layers), H) float64.

    Raises ExtractionError for a layer outside 0..L, one named twice, or one whose direction is zero or not finite. Layer 0 has
    none at the last token, which is the same for every prompt.
    """
    last = directions.mean_difference_LH.shape[0] - 1
    for layer in layers:
        if not 0 <= layer <= last:
            raise ExtractionError(
                f"Layer {layer} is out of range: the model has layers 0 to {last} (resid_pre; {last} is its output)."
            )
        if layers.count(layer) > 1:
            raise ExtractionError(f"Layer {layer} is named more than once.")
    chosen = directions.direction_LH[list(layers)]
    norms = chosen.norm(dim=-1)
    scale = directions.answered_mean_LH[list(layers)].norm(dim=-1)
    for layer, norm, size in zip(layers, norms.tolist(), scale.tolist(), strict=True):
        if not math.isfinite(norm):
            raise ExtractionError(f"Layer {layer}'s direction is not finite. Extract the directions again, with bin/extract.")
        if not norm > 1e-9 * size:
            raise ExtractionError(
                f"Layer {layer} has no direction: the declined and answered means differ by {norm:g}. "
                "At layer 0 the last token is the same for every prompt; choose a later layer."
            )
    return chosen / norms[:, None]
