"""`bin/edit --verify`: a checkpoint made elsewhere against its base. Which tensors differ, and what the edited ones still
write along the directions that were removed."""

from dataclasses import dataclass

import torch

from editing.apply import edit_of
from editing.checkpoint import Checkpoint
from editing.errors import EditError
from editing.plan import EditPlan
from editing.projection import Edit
from editing.proof import Proof, measure


@dataclass(frozen=True)
class Comparison:
    """`differing`: names of every tensor that is not the base's, bit for bit; `missing` and `added`: names that only one of
    the two has; `proofs`: of every tensor of the plan, where directions were given."""

    differing: list[str]
    missing: list[str]
    added: list[str]
    proofs: list[Proof]


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
    return Comparison(differing, missing, sorted(checkpoint.tensors.keys() - base.tensors.keys()), [])


def verify(checkpoint: Checkpoint, base: Checkpoint, plan: EditPlan, edit: Edit) -> Comparison:
    """The comparison, with the proof of every tensor that the plan edits; `plan` and `edit` are in terms of the base."""
    found = differing_tensors(checkpoint, base)
    proofs = [
        measure(base.read(tensor.name), checkpoint.read(tensor.name), tensor, edit_of(base, tensor, edit))
        for tensor in plan.edited
    ]
    return Comparison(found.differing, found.missing, found.added, proofs)
