"""The audit without a base: directions that the writers of a checkpoint never write.

A direction that was folded out has almost no energy, orders of magnitude below the next; in an untouched model the spectrum
starts smoothly. Every tensor and block is looked at too, which finds edits of some blocks and blocks with directions of their
own.
"""
# H = hidden size, K = directions

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing.apply import along
from editing.checkpoint import Checkpoint
from editing.finding import CANNOT_TELL, ERASED, NONE, Finding, named, near_axes, without_directions
from editing.plan import PlannedTensor
from editing.spectrum import EVERYWHERE, ONE_BLOCK, Look, by_layer, looks, merged, written

LIMITS = "Without the base, a share below about 0.8, a reflection (alpha = 2) or an edit of narrow writers alone does not show."


@dataclass(frozen=True)
class _Missing:
    """Directions that one look misses, (H, K), and the mean energy left along them."""

    look: Look
    space_HK: Tensor
    energy: float


def audit_alone(checkpoint: Checkpoint, writers: Sequence[PlannedTensor]) -> Finding:
    """What the writers of a checkpoint miss, by their own spectra."""
    size = checkpoint.hidden_size
    found, count = [], 0
    for look, pool in looks(writers, size, lambda tensor: written(checkpoint, tensor)):
        count += 1
        if (missing := pool.missing()) is not None:
            found.append(_Missing(look, *missing))
        if look.breadth == EVERYWHERE:
            axes = pool.small_channels
            smallest, is_wide = pool.correlation()[0][:8].tolist(), pool.is_wide
    evidence = [_spectrum(smallest), *axes_sentences(axes)]
    if not found:
        return without_directions(NONE if is_wide else CANNOT_TELL, size, smallest, axes, [*evidence, LIMITS])
    found.sort(key=lambda one: one.look.breadth)
    directions_HK = merged([one.space_HK for one in found], size)
    evidence += [f"Seen in {len(found)} of {count} groups of writers.", *_blocks_sentences(found, directions_HK.shape[1])]
    evidence += near_axes(directions_HK)
    alpha = 1 - min(found, key=lambda one: (one.look.breadth, one.energy)).energy ** 0.5
    shares = energy_shares(checkpoint, writers, directions_HK)
    return Finding(ERASED, directions_HK.shape[1], directions_HK, shares, smallest, alpha, axes, evidence)


def energy_shares(checkpoint: Checkpoint, writers: Sequence[PlannedTensor], directions_HK: Tensor) -> dict[int, float]:
    """Per block, the least energy that one of its writers keeps along a direction of the span; 1 is an average direction's."""
    shares: dict[int, float] = {}
    for layer, tensors in by_layer(writers).items():
        for tensor in tensors:
            weight = written(checkpoint, tensor)
            part_NK = along(weight, directions_HK, tensor.axis).double()
            least = float(torch.linalg.eigvalsh(part_NK.T @ part_NK)[0].clamp_min(0)) * weight.shape[tensor.axis]
            share = least / max(float(weight.double().square().sum()), 1e-30)
            shares[layer] = min(shares.get(layer, share), share)
    return shares


def axes_sentences(axes: list[int]) -> list[str]:
    """A sentence, in a list, on channels that are small by themselves; an empty list where there are none."""
    if not axes:
        return []
    return [f"Almost nothing is written to {named(axes)}: small by themselves, axes of the stream, not directions taken out."]


def _blocks_sentences(found: list[_Missing], count: int) -> list[str]:
    own = {one.look.tensors[0].layer: one.space_HK.shape[1] for one in found if one.look.breadth == ONE_BLOCK}
    if not own or count <= max(own.values()):
        return []
    return [f"Blocks miss different directions: {sum(own.values())} in {len(own)} blocks, {count} of them distinct."]


def _spectrum(values: list[float]) -> str:
    numbers = ", ".join(f"{value:.2g}" for value in values)
    return f"Smallest eigenvalues of the writers' sum over their mean, channels scaled to one energy: {numbers}."
