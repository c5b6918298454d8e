"""`bin/edit --verify`: a checkpoint made elsewhere against its base. Which tensors differ, and what the edited ones still
write along the directions that were removed."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from editing.apply import edit_of
from editing.checkpoint import Checkpoint
from editing.errors import EditError
from editing.plan import PlannedTensor
from editing.projection import Edit
from editing.proof import Proof, measure


@dataclass(frozen=True)
class Comparison:
    """`differing`: names of every tensor that is not the base's, bit for bit; `missing` and `added`: names that only one of
    the two has."""

    differing: list[str]
    missing: list[str]
    added: list[str]


def differing_tensors(checkpoint: Checkpoint, base: Checkpoint) -> Comparison:
    """Compare every tensor by its bits. Raises EditError where a common tensor has another shape or dtype."""
    common = sorted(base.tensors.keys() & checkpoint.tensors.keys())
    differing = []
    for name in common:
        ours, theirs = checkpoint.tensors[name], base.tensors[name]
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            raise EditError(
                f"{name} is {ours.shape} {ours.dtype} here and {theirs.shape} {theirs.dtype} in the base: another model."
            )
        if not torch.equal(checkpoint.read(name).flatten().view(torch.uint8), base.read(name).flatten().view(torch.uint8)):
            differing.append(name)
    missing = sorted(base.tensors.keys() - checkpoint.tensors.keys())
    return Comparison(differing, missing, sorted(checkpoint.tensors.keys() - base.tensors.keys()))


def prove_against(checkpoint: Checkpoint, base: Checkpoint, tensors: Iterable[PlannedTensor], edit: Edit) -> list[Proof]:
    """The proof of each of the base's planned tensors as the checkpoint has it; `edit` is in terms of the base."""
    return [measure(base.read(t.name), checkpoint.read(t.name), t, edit_of(base, t, edit)) for t in tensors]
