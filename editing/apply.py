"""One planned tensor's edit: with its own alpha, and in front of the norm that may follow it."""

from dataclasses import replace

import torch
from torch import Tensor

from editing.checkpoint import Checkpoint
from editing.plan import PlannedTensor
from editing.projection import BLOCK, Edit, Removal, behind_gain, column_blocks, compute_dtype, project_out


def edit_of(checkpoint: Checkpoint, tensor: PlannedTensor, edit: Edit) -> Removal:
    """The edit of this tensor: with its block's alpha, and in front of the norm where one follows."""
    if tensor.alpha is not None:
        edit = replace(edit, alpha=tensor.alpha)
    gain_H = gain_of(checkpoint, tensor)
    return edit if gain_H is None else behind_gain(edit, gain_H)


def gain_of(checkpoint: Checkpoint, tensor: PlannedTensor) -> Tensor | None:
    """The gain of the norm behind a tensor, (H,) float64; None where no norm follows."""
    return None if tensor.gain is None else checkpoint.read(tensor.gain).to(torch.float64) + tensor.gain_offset


def edited_tensor(checkpoint: Checkpoint, tensor: PlannedTensor, edit: Edit, out: Tensor | None = None) -> Tensor:
    """The tensor after the edit, in its own shape and dtype; computed on the GPU where there is one.

    out: memory to write it to; None makes a new tensor.
    """
    weight, own = checkpoint.read(tensor.name), edit_of(checkpoint, tensor, edit)
    if not torch.cuda.is_available():
        return project_out(weight, own, tensor.axis, out)
    edited = project_out(weight.cuda(), own, tensor.axis)
    return edited.cpu() if out is None else out.copy_(edited)


def along(weight: Tensor, basis_HK: Tensor, axis: int) -> Tensor:
    """Components of a weight's hidden-axis vectors on the basis, in blocks: (vectors, K)."""
    if weight.dim() == 3 and axis == 1:
        return torch.cat([along(expert_HI, basis_HK, 0) for expert_HI in weight])
    dtype = compute_dtype(weight)
    basis_HK = basis_HK.to(dtype)
    if axis == 0:
        basis_KH = basis_HK.T.contiguous()
        return torch.cat([(basis_KH @ block_HB).T for _, block_HB in column_blocks(weight, dtype)])
    return torch.cat([block_BH.to(dtype) @ basis_HK for block_BH in weight.reshape(-1, weight.shape[-1]).split(BLOCK)])
