"""Directions that mean nothing, from the same prompts: shuffled labels, and random ones of the stream's own covariance.

A control is a weighting of the prompts, so one pass over the model makes any number of them.
"""
# N = pairs, 2N = prompts, declined sides first; L = layers, H = hidden size

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from extraction.kinds import FEW

SHUFFLED, RANDOM = "shuffled", "random"


@dataclass(frozen=True)
class Control:
    """One draw: shuffled labels or a random direction. Equal seeds and pairs give equal draws."""

    kind: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}{self.number}"


def controls(number: int, seed: int) -> list[Control]:
    """`number` draws of shuffled labels, and as many random directions."""
    return [Control(kind, place, seed) for kind in (SHUFFLED, RANDOM) for place in range(1, number + 1)]


def swapped_places(kinds: Sequence[str], draw: Control) -> list[int]:
    """Places of the pairs whose sides a draw of shuffled labels exchanges.

    Half of the kinds, all pairs of a kind together; half of the pairs where there are fewer than eight kinds.
    """
    generator = random.Random(f"{draw.seed} {draw.number}")
    names = sorted({kind for kind in kinds if kind})
    if len(names) < FEW:
        return sorted(generator.sample(range(len(kinds)), len(kinds) // 2))
    chosen = set(generator.sample(names, len(names) // 2))
    loose = {place for place, kind in enumerate(kinds) if not kind and generator.random() < 0.5}
    return sorted({place for place, kind in enumerate(kinds) if kind in chosen} | loose)


def random_weights(count: int, draw: Control) -> Tensor:
    """Weights of 2N prompts that sum to 0, (2N,) float64: the sum of the streams so weighted is a draw of their covariance.

    With g standard normal, the sum of g (x - mean) has covariance N times that of x. An isotropic direction would carry little
    of a stream with huge components.
    """
    generator = torch.Generator().manual_seed(random.Random(f"{draw.seed} {draw.number} {draw.kind}").getrandbits(48))
    weights = torch.randn(2 * count, generator=generator, dtype=torch.float64)
    return weights - weights.mean()


def as_long(drawn_LH: Tensor, difference_LH: Tensor) -> Tensor:
    """Each layer's vector at the length of the mean difference; a vector of zeros stays."""
    norms_L = drawn_LH.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return drawn_LH / norms_L * difference_LH.norm(dim=-1, keepdim=True)
