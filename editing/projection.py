"""Arithmetic of an edit, on tensors, not paths.

The checkpoint writer and the hot swap both call it, so that they give the same bits.
"""
# H = hidden size, I = a projection's input size, K = directions removed, B = a block of vectors, N = rows, E = experts

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from editing.errors import EditError

BLOCK = 256  # vectors at a time: the working set stays in the cache, memory at one block; fixed, so that bits do not vary
GPU_BLOCK = 4096  # on a GPU a launch costs more than its arithmetic: 2 blocks for a 3B model's down_proj, not 32
TINY = 1e-30  # a vector with nothing left stays zero
DEPENDENT = 1e-6  # what is left of a unit direction after removing the others, below which it adds nothing
TAU = 0.1  # of a norm's median gain: channels with smaller gains carry less of an edit in front of it
BEHIND_NORMS = f"written, tau {TAU}"  # the operator of `behind_gain`, a part of a variant's identity where it is used


class Removal(Protocol):
    """W - alpha A (B^T W): what is read of each vector, B (H, K), is taken off it along A (H, K)."""

    @property
    def write_HK(self) -> Tensor: ...  # A

    @property
    def read_HK(self) -> Tensor: ...  # B

    @property
    def alpha(self) -> float: ...

    @property
    def keep_norms(self) -> bool: ...


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

    @property
    def write_HK(self) -> Tensor:
        return self.basis_HK

    @property
    def read_HK(self) -> Tensor:
        return self.basis_HK


@dataclass(frozen=True)
class Fold:
    """An edit as it reaches one tensor: the Removal with that tensor's own alpha, in front of the norm that may follow it."""

    write_HK: Tensor
    read_HK: Tensor
    alpha: float
    keep_norms: bool = False


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


def project_out(weight: Tensor, edit: Removal, axis: int = 0, out: Tensor | None = None) -> Tensor:
    """W - alpha A (B^T W) along the weight's hidden axis: the same shape and dtype, rounded once. An Edit has A = B = Q.

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


def _project_columns(weight_HI: Tensor, edited_HI: Tensor, edit: Removal) -> None:
    dtype = compute_dtype(weight_HI)
    read_KH = edit.read_HK.T.contiguous().to(weight_HI.device, dtype)
    scaled_HK = (edit.write_HK.to(weight_HI.device, dtype) * edit.alpha).contiguous()
    for start, block_HB in column_blocks(weight_HI, dtype):
        norms_B = block_HB.norm(dim=0) if edit.keep_norms else None
        block_HB.addmm_(scaled_HK, read_KH @ block_HB, alpha=-1)
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


def _project_rows(weight_NH: Tensor, edited_NH: Tensor, edit: Removal) -> None:
    dtype = compute_dtype(weight_NH)
    read_HK = edit.read_HK.to(weight_NH.device, dtype)
    scaled_KH = (edit.write_HK.to(weight_NH.device, dtype) * edit.alpha).T
    size = block_size(weight_NH)
    for start in range(0, weight_NH.shape[0], size):
        block_BH = weight_NH[start : start + size].to(dtype)
        result_BH = block_BH - (block_BH @ read_HK) @ scaled_KH
        if edit.keep_norms:
            result_BH *= (block_BH.norm(dim=1) / result_BH.norm(dim=1).clamp_min(TINY))[:, None]
        edited_NH[start : start + size] = result_BH


def behind_gain(edit: Edit, gain_H: Tensor) -> Fold:
    """An edit in front of an RMSNorm with gain g that follows the projection: what the norm puts out loses its part along Q.

    What is written is g * (W x) / rms(W x). With D = diag(g), B = D Q and any A with B^T A = 1, Q^T D (W - alpha A B^T W) is
    (1 - alpha) Q^T D W. A = D^-1 Q projects what is written, (1 - alpha Q Q^T) D W, but where a gain is small it makes a row of
    W large, and with it the rms. So A minimises |D A|^2 + tau^2 |A|^2, the change of what is written and, weighed by tau, of W:
    A = D^-1 S Q (Q^T S Q)^-1 with S = g^2 / (g^2 + tau^2). tau is TAU times the median of the gains' sizes without zeros.
    A channel with gain 0 writes nothing and is left as it is.
    """
    gain_H = gain_H.to("cpu", torch.float64)
    sizes = gain_H.abs()
    if not bool(sizes.any()):
        return Fold(torch.zeros_like(edit.basis_HK), edit.basis_HK, edit.alpha, edit.keep_norms)
    tau = TAU * sizes[sizes > 0].median()
    read_HK = gain_H[:, None] * edit.basis_HK
    carried_HK = (gain_H / (gain_H.square() + tau**2))[:, None] * edit.basis_HK
    write_HK = carried_HK @ torch.linalg.pinv(read_HK.T @ carried_HK, hermitian=True)
    return Fold(write_HK.contiguous(), read_HK.contiguous(), edit.alpha, edit.keep_norms)
