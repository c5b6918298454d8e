"""Proof of an edit: what an edited tensor still writes along the removed directions, read back from its file.

It is measured on what is written, behind the norm that may follow, and knows nothing of how the edit was made: with the norm's
gain g, Q^T diag(g) W'. The bound is what rounding alone leaves. With unit roundoff u, a vector of H values of root mean square s
rounds to an error. Its part along each direction has a standard deviation of at most u s, so over I vectors and K directions
u s sqrt(I K). Behind a norm s is the root mean square of (g Q)_i s_i over the directions, for channels of sizes s_i.
In a wide model the change that one direction makes to a value comes near half its last place. Values that do not move then
leave a part of the direction, the same sign everywhere. Measured: 2.7 standard deviations at H = 2048 and K = 1, 8.9 at 8192,
but 0.9 at K = 4. Hence the factor 1 + H / (1000 K).
"""
# H = hidden size, I = a writer's vectors, K = directions

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editing.apply import along, gain_of
from editing.checkpoint import Checkpoint, read_range
from editing.errors import EditError
from editing.plan import PlannedTensor
from editing.projection import Edit

UNIT_ROUNDOFF = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-11, torch.float32: 2.0**-24}
SMALLEST = {torch.bfloat16: 2.0**-134, torch.float16: 2.0**-25, torch.float32: 2.0**-150}  # half the last place near zero
SAMPLED = 64  # vectors, for the sizes of a weight's channels
SLACK = 3.0  # over the standard deviation, and for float32 arithmetic


@dataclass(frozen=True)
class Proof:
    """A proof of one edited tensor: what is left of the direction, against what rounding explains.

    residual: ||Q^T W'|| / ||Q^T W||, with the norm's gain where there is one.
    expected: |1 - alpha|.
    bound: the largest distance of the two that rounding explains.
    """

    tensor: str
    role: str
    alpha: float
    residual: float
    expected: float
    bound: float

    @property
    def holds(self) -> bool:
        return abs(self.residual - self.expected) <= self.bound


def prove_tensor(checkpoint: Checkpoint, tensor: PlannedTensor, edit: Edit, file: Path, scratch: Tensor) -> Proof:
    """A proof of a tensor that was written to `file`, against the base's. Raises EditError where the direction is still there.

    scratch: memory of the tensor's shape and dtype; it is overwritten.
    """
    weight = scratch
    read_range(file, checkpoint.tensors[tensor.name], weight)
    proof = prove(checkpoint, tensor, edit, weight)
    if not proof.holds:
        raise EditError(
            f"{tensor.name}: after the edit ||Q^T W'|| / ||Q^T W|| is {proof.residual:.4f}; expected {proof.expected:.4f}, and "
            f"rounding explains at most {proof.bound:.4f} more. The written file was removed."
        )
    return proof


def prove(base: Checkpoint, tensor: PlannedTensor, edit: Edit, weight: Tensor) -> Proof:
    """A proof of one tensor of the base from its edited weight. `edit` is the whole model's, in terms of the base."""
    alpha = edit.alpha if tensor.alpha is None else tensor.alpha
    gain_H = gain_of(base, tensor)
    written_HK = edit.basis_HK if gain_H is None else gain_H[:, None] * edit.basis_HK  # Q^T diag(g) W = (diag(g) Q)^T W
    original = base.read(tensor.name)
    before = float(along(original, written_HK, tensor.axis).norm())
    after = float(along(weight, written_HK, tensor.axis).norm())
    noise = _rounding(weight, written_HK, tensor.axis, {weight.dtype, original.dtype})
    if before <= noise:  # nothing was written along Q to begin with
        return Proof(tensor.name, tensor.role, alpha, 0.0, 0.0, 1.0)
    return Proof(tensor.name, tensor.role, alpha, after / before, abs(1 - alpha), noise / before)


def _rounding(weight: Tensor, written_HK: Tensor, axis: int, dtypes: Collection[torch.dtype]) -> float:
    """The largest ||Q^T diag(g) E|| that the error E of rounding a weight explains; `written_HK` is diag(g) Q.

    dtypes: the types that it was rounded to: two, where a copy was converted.
    """
    width, rank = written_HK.shape
    vectors = weight.movedim(axis, -1)
    sampled = vectors if weight.dim() == 1 else vectors[..., :: max(1, vectors.shape[-2] // SAMPLED), :]
    sizes_H = sampled.reshape(-1, width).double().square().mean(0).sqrt()
    error_H = max(UNIT_ROUNDOFF[dtype] for dtype in dtypes) * sizes_H + max(SMALLEST[dtype] for dtype in dtypes)
    error = float((error_H[:, None] * written_HK).norm())
    return SLACK * error * (weight.numel() // width) ** 0.5 * (1 + width / (1000 * rank))
