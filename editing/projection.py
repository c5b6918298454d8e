"""Arithmetic of an edit, on tensors, not paths.

The checkpoint writer and the hot swap both call it, so that they give the same bits.
"""
# H = hidden size, I = a projection's input size, K = directions removed, B = a block of vectors, N = rows, E = experts

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from editing.errors import EditError

BLOCK = 256  # vectors at a time: the working set stays in the cache, memory at one block; fixed, so that bits do not vary
GPU_BLOCK = 4096  # on a GPU a launch costs more than its arithmetic: 2 blocks for a 3B model's down_proj, not 32
TINY = 1e-30  # a vector with nothing left stays zero
DEPENDENT = 1e-6  # what is left of a unit direction after removing the others, below which it adds nothing


@dataclass(frozen=True)
class Edit:
    """A projection to remove: an orthonormal basis (H, K) in float64 and the share alpha of the projection onto it.

    alpha: 1 removes it whole, below 1 a part, 2 reflects.
    keep_norms: every edited vector is scaled back to its old length.
    """

    basis_HK: Tensor
    alpha: float
    keep_norms: bool = False

    @property
    def basis_hash(self) -> str:
        """SHA-256 of the basis's float64 bytes, row-major, after its shape."""
        header = "x".join(map(str, self.basis_HK.shape)).encode()
        return hashlib.sha256(header + self.basis_HK.contiguous().numpy().tobytes()).hexdigest()


def orthonormal_basis(directions_KH: Tensor, *, k: int | None = None, names: list[str] | None = None) -> Tensor:
    """Orthonormal columns (H, k) that span the given directions, by QR in float64.

    k: below the number of directions, the k leading left singular vectors of the unit directions are taken.
    names: of the directions, for messages.
    Raises EditError for k too large, values that are not finite, or a direction that depends on those before it.
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


def project_out(weight: Tensor, edit: Edit, axis: int = 0, out: Tensor | None = None) -> Tensor:
    """W - alpha Q (Q^T W) along the weight's hidden axis: the same shape and dtype, rounded once.

    axis: 0 for (H, I). -1 for (..., H), as embeddings, Conv1D weights and biases. 1 of three for experts (E, H, I).
    out: memory to write it to; None makes a new tensor.
    With `edit.keep_norms` every vector along the hidden axis keeps its length: scaling it cannot bring the direction back.

    On a CPU 16-bit weights are computed in float32. float64 costs several times as much there and changes about 1 in 50,000
    values by the last bit. float32 weights, and everything on a GPU, are computed in float64. Vectors along the hidden axis do
    not depend on each other, so a slice of them (tensor parallelism) gives the same bits.
    """
    edited = torch.empty_like(weight, memory_format=torch.contiguous_format) if out is None else out
    if weight.dim() == 3 and axis == 1:
        for source_HI, target_HI in zip(weight, edited, strict=True):
            _project_columns(source_HI, target_HI, edit)
    elif axis == 0:
        _project_columns(weight, edited, edit)
    else:
        width = weight.shape[-1]
        _project_rows(weight.reshape(-1, width), edited.view(-1, width), edit)
    return edited


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype an edit is computed in: float32 for 16-bit weights on the CPU, else float64."""
    exact = weight.dtype == torch.float32 or weight.device.type != "cpu"
    return torch.float64 if exact else torch.float32


def _project_columns(weight_HI: Tensor, edited_HI: Tensor, edit: Edit) -> None:
    dtype = compute_dtype(weight_HI)
    basis_KH = edit.basis_HK.T.contiguous().to(weight_HI.device, dtype)
    scaled_HK = (basis_KH.T * edit.alpha).contiguous()
    for start, block_HB in column_blocks(weight_HI, dtype):
        norms_B = block_HB.norm(dim=0) if edit.keep_norms else None
        block_HB.addmm_(scaled_HK, basis_KH @ block_HB, alpha=-1)
        if norms_B is not None:
            block_HB *= norms_B / block_HB.norm(dim=0).clamp_min(TINY)
        edited_HI[:, start : start + block_HB.shape[1]] = block_HB


def column_blocks(weight_HI: Tensor, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """Blocks of columns in `dtype`, each with its first column's number.

    One buffer serves them all, so use each block before the next is drawn.
    """
    size = block_size(weight_HI)
    buffer_HB = torch.empty(weight_HI.shape[0], size, dtype=dtype, device=weight_HI.device)
    for start in range(0, weight_HI.shape[1], size):
        source = weight_HI[:, start : start + size]
        yield start, buffer_HB[:, : source.shape[1]].copy_(source)


def block_size(weight: Tensor) -> int:
    """Number of vectors along the hidden axis that are edited at a time, on the weight's device."""
    return BLOCK if weight.device.type == "cpu" else GPU_BLOCK


def _project_rows(weight_NH: Tensor, edited_NH: Tensor, edit: Edit) -> None:
    dtype = compute_dtype(weight_NH)
    basis_HK = edit.basis_HK.to(weight_NH.device, dtype)
    scaled_KH = (basis_HK * edit.alpha).T
    size = block_size(weight_NH)
    for start in range(0, weight_NH.shape[0], size):
        block_BH = weight_NH[start : start + size].to(dtype)
        result_BH = block_BH - (block_BH @ basis_HK) @ scaled_KH
        if edit.keep_norms:
            result_BH *= (block_BH.norm(dim=1) / result_BH.norm(dim=1).clamp_min(TINY))[:, None]
        edited_NH[start : start + size] = result_BH


def behind_gain(edit: Edit, gain_H: Tensor) -> Edit:
    """An edit of a projection whose output passes an RMSNorm with gain g before the residual add.

    What is written is diag(g) W x / rms(W x). It has no part along Q for every x exactly when Q^T diag(g) W = 0, that is
    when W's columns are orthogonal to diag(g) Q. The scalar rms changes nothing about that. So the projection removes the
    span of diag(g) Q, made orthonormal again, in place of Q.
    """
    weighted_HK = gain_H.to("cpu", torch.float64)[:, None] * edit.basis_HK
    return replace(edit, basis_HK=torch.linalg.qr(weighted_HK)[0].contiguous())
