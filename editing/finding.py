"""What an audit says: its verdict, the directions, and the evidence in words."""
# H = hidden size, K = directions

from dataclasses import dataclass

import torch
from torch import Tensor

ERASED, REFLECTED, AMPLIFIED = "erased directions", "reflected directions", "amplified directions"
AXES, NONE, CANNOT_TELL = "small channels", "none found", "cannot tell"
REFLECTS = 1.5  # a share removed above this turns a direction round more than it takes it away
NAMED = 8  # channels named in a sentence
NEAR_AXIS = 0.8  # of a channel's unit vector inside the directions, worth a word


@dataclass(frozen=True)
class Finding:
    """The verdict on a checkpoint, with its evidence in words.

    verdict: `erased directions`, `reflected directions` (a share above 1.5), `amplified directions` (below 0), `small channels`,
        `none found` or `cannot tell`. `small channels` are axes of the stream that the writers hardly use, not directions.
    count, directions_HK: the verdict's directions, orthonormal.
    shares: by block, the least energy that its writers keep along a direction of their span; 1 is an average direction's, or the
        base's.
    eigenvalues: the smallest of the writers' sum over their mean; with a base, the largest shares of the change.
    alpha: the estimated share removed, negative where it was amplified; None where it cannot be told.
    axes: residual channels that are small, or changed, by themselves.
    """

    verdict: str
    count: int
    directions_HK: Tensor
    shares: dict[int, float]
    eigenvalues: list[float]
    alpha: float | None
    axes: list[int]
    evidence: list[str]


def kind_of(alpha: float) -> str:
    """The word for a share that was removed."""
    if alpha < 0:
        return AMPLIFIED
    return REFLECTED if alpha > REFLECTS else ERASED


def without_directions(verdict: str, hidden_size: int, eigenvalues: list[float], axes: list[int], evidence: list[str]) -> Finding:
    """A Finding without directions; `small channels` where there are axes and nothing else."""
    nothing = torch.zeros(hidden_size, 0, dtype=torch.float64)
    return Finding(AXES if axes and verdict == NONE else verdict, 0, nothing, {}, eigenvalues, None, axes, evidence)


def named(channels: list[int]) -> str:
    """Channels for a sentence: the first few, and how many there are."""
    text = f"channel{'s' if len(channels) > 1 else ''} " + ", ".join(map(str, channels[:NAMED]))
    return text if len(channels) <= NAMED else f"{text} and {len(channels) - NAMED} more"


def near_axes(directions_HK: Tensor) -> list[str]:
    """A sentence, in a list, where directions lie close to a channel's axis; an empty list where none does."""
    near = torch.nonzero(directions_HK.square().sum(1) > NEAR_AXIS).flatten().tolist()
    return [f"They lie close to the axis of {named(near)}."] if near else []
