"""The arithmetic of an edit. Takes tensors, not paths; the checkpoint writer and the hot swap both call it, so that
they give the same bits."""
# H = hidden size (rows of a writer), I = its input size, K = directions removed

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from editing.errors import EditError

COLUMN_BLOCK = 1024  # columns in float64 at a time: the working set stays near the cache, memory at one block
DEPENDENT = 1e-6  # what is left of a unit direction after removing the others, below which it adds nothing


@dataclass(frozen=True)
class Edit:
    """What is removed: an orthonormal basis (H, K) in float64 and the share alpha of the projection onto it."""

    basis_HK: Tensor
    alpha: float

    @property
    def basis_hash(self) -> str:
        """SHA-256 of the basis's float64 bytes, row-major, after its shape."""
        header = "x".join(map(str, self.basis_HK.shape)).encode()
        return hashlib.sha256(header + self.basis_HK.contiguous().numpy().tobytes()).hexdigest()


def orthonormal_basis(directions_KH: Tensor, *, k: int | None = None, names: list[str] | None = None) -> Tensor:
    """Orthonormal columns (H, k) that span the given directions, by QR in float64.

    With `k` below the number of directions, the k leading left singular vectors of the unit directions. Raises
    EditError for k too large, values that are not finite, or a direction that depends on those before it.
    """
    directions_HK = directions_KH.to("cpu", torch.float64).T
    count = directions_HK.shape[1]
    names = names or [f"direction {index}" for index in range(count)]
    if k is not None and not 1 <= k <= count:
        raise EditError(f"k = {k}, but {count} direction(s) are given; k must be between 1 and {count}.")
    if not torch.isfinite(directions_HK).all():
        raise EditError("A direction has values that are not finite; extract it again, from another layer or position.")
    unit_HK = directions_HK / directions_HK.norm(dim=0)
    basis_HK, triangle_KK = torch.linalg.qr(unit_HK)
    for index, left_over in enumerate(triangle_KK.diagonal().abs().tolist()):
        if not left_over > DEPENDENT:
            raise EditError(
                f"{names[index]} depends linearly on those before it (what is left of it has length {left_over:.1e}). "
                "Leave it out."
            )
    if k is not None and k < count:
        return torch.linalg.svd(unit_HK, full_matrices=False)[0][:, :k].contiguous()
    return basis_HK.contiguous()


def check_edit(edit: Edit, hidden_size: int) -> None:
    """Raise EditError unless the basis is (hidden_size, K), orthonormal, and alpha a finite number."""
    height, width = edit.basis_HK.shape
    if height != hidden_size:
        raise EditError(f"The basis has width {height}; this model's hidden size is {hidden_size}.")
    gram = edit.basis_HK.T @ edit.basis_HK
    if not torch.allclose(gram, torch.eye(width, dtype=gram.dtype), atol=1e-9):
        raise EditError("The basis is not orthonormal; make it with orthonormal_basis.")
    if not math.isfinite(edit.alpha):
        raise EditError(f"alpha must be a finite number, found {edit.alpha}.")


def project_out(weight_HI: Tensor, edit: Edit) -> Tensor:
    """W - alpha Q (Q^T W), computed in float64 and rounded once to the weight's dtype: a new tensor, (H, I).

    Columns are independent of each other, so a slice of the columns (tensor parallelism) gives the same bits.
    """
    basis_HK = edit.basis_HK.to(weight_HI.device)
    edited_HI = torch.empty_like(weight_HI, memory_format=torch.contiguous_format)
    for start in range(0, weight_HI.shape[1], COLUMN_BLOCK):
        block_HB = weight_HI[:, start : start + COLUMN_BLOCK].to(torch.float64)
        edited_HI[:, start : start + COLUMN_BLOCK] = block_HB - basis_HK @ (basis_HK.T @ block_HB) * edit.alpha
    return edited_HI
