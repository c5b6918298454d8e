"""Controls from streams at hand: shuffled labels, and random directions of the stream's own covariance."""
# H = hidden size, K = directions

from collections.abc import Sequence

import torch
from torch import Tensor

from extraction.controls import SHUFFLED, Control, as_long, random_weights, swapped_places
from extraction.directions import Directions, Streams, directions_from, unit_directions


def control_directions(
    streams: Streams, control: Control, position: str, estimator: str, kinds: Sequence[str] | None = None
) -> Directions:
    """One control's directions of every layer; shuffled labels exchange the sides of whole kinds."""
    if control.kind == SHUFFLED:
        places = swapped_places(kinds or [""] * streams.num_pairs, control)
        return directions_from(streams.swapped(places), position, estimator)
    true = directions_from(streams, position)
    weights_N = random_weights(streams.num_pairs, control)
    both_LNH = torch.cat([streams.declined_LNH, streams.answered_LNH], dim=1)
    drawn_LH = torch.stack([weights_N @ resid_NH.double() for resid_NH in both_LNH])
    declined_LH = true.answered_mean_LH + as_long(drawn_LH, true.mean_difference_LH)
    return Directions(declined_LH, true.answered_mean_LH, streams.num_pairs, position)


def control_units(
    streams: Streams, control: Control, layers: Sequence[int], position: str, estimator: str, kinds: Sequence[str] | None = None
) -> Tensor:
    """The unit directions of one control at some layers, (K, H)."""
    return unit_directions(control_directions(streams, control, position, estimator, kinds), layers)
