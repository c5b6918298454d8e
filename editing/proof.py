"""Proof of an edit: what an edited tensor still writes along the removed directions, read back from its file.

The bound is what rounding alone leaves. With unit roundoff u, a vector of H values of root mean square s rounds to an
error. Its part along each direction has a standard deviation of at most u s, so over I vectors and K directions u s sqrt(I K).
In a wide model the change that one direction makes to a value comes near half its last place. Values that do not move then
leave a part of the direction, the same sign everywhere. Measured: 2.7 standard deviations at H = 2048 and K = 1, 8.9 at 8192,
but 0.9 at K = 4. Hence the factor 1 + H / (1000 K).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editing.apply import along, edit_of
from editing.checkpoint import Checkpoint, read_range
from editing.errors import EditError
from editing.plan import PlannedTensor
from editing.projection import Edit

UNIT_ROUNDOFF = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-11, torch.float32: 2.0**-24}
SMALLEST = {torch.bfloat16: 2.0**-134, torch.float16: 2.0**-25, torch.float32: 2.0**-150}  # half the last place near zero
SAMPLED_ROWS = 64  # for the size of a weight's values
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
    proof = measure(checkpoint.read(tensor.name), weight, tensor, edit_of(checkpoint, tensor, edit))
    if not proof.holds:
        raise EditError(
            f"{tensor.name}: after the edit ||Q^T W'|| / ||Q^T W|| is {proof.residual:.4f}; expected {proof.expected:.4f}, and "
            f"rounding explains at most {proof.bound:.4f} more. The written file was removed."
        )
    return proof


def measure(base: Tensor, weight: Tensor, tensor: PlannedTensor, edit: Edit) -> Proof:
    """A proof of a tensor from the base's and the edited weight. `edit` is this tensor's own (gain included)."""
    before = float(along(base, edit.basis_HK, tensor.axis).norm())
    after = float(along(weight, edit.basis_HK, tensor.axis).norm())
    vectors = weight.numel() // weight.shape[tensor.axis]
    sample = weight.reshape(-1, weight.shape[-1])[:: max(1, weight.numel() // weight.shape[-1] // SAMPLED_ROWS)].float()
    size = float(sample.norm()) / sample.numel() ** 0.5
    error = UNIT_ROUNDOFF[weight.dtype] * size + SMALLEST[weight.dtype]
    width, rank = edit.basis_HK.shape
    noise = SLACK * error * (vectors * rank) ** 0.5 * (1 + width / (1000 * rank))
    if before <= noise:  # nothing was written along Q to begin with
        return Proof(tensor.name, tensor.role, edit.alpha, 0.0, 0.0, 1.0)
    return Proof(tensor.name, tensor.role, edit.alpha, after / before, abs(1 - edit.alpha), noise / before)
