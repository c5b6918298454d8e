"""Controls: random directions, and those that extraction finds in the same prompts under shuffled labels."""
# H = hidden size, K = directions

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from extraction.directions import Directions, Streams, directions_from, swapped_pairs, unit_directions


def random_directions(number: int, k: int, hidden_size: int, seed: int) -> Iterator[Tensor]:
    """`number` random subspaces' directions, (K, H) float64, not orthogonal: standard normal draws of one generator."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        yield torch.randn(k, hidden_size, generator=generator, dtype=torch.float64)


def shuffled_labels(streams: Streams, position: str, estimator: str, seed: int) -> Directions:
    """Directions of the same prompts with the sides of half the pairs exchanged."""
    return directions_from(streams.swapped(swapped_pairs(streams.num_pairs, seed)), position, estimator)


def shuffled_units(streams: Streams, layers: Sequence[int], position: str, estimator: str, seed: int) -> Tensor:
    """The unit directions of `shuffled_labels` at some layers, (K, H)."""
    return unit_directions(shuffled_labels(streams, position, estimator, seed), layers)
