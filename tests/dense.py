"""The edit as dense float64 maths on whole matrices: the reference of the editing tests. Imports nothing of the project."""
# H = hidden size, I = a projection's input size, K = directions

from collections.abc import Mapping

import torch
from torch import Tensor

TAU = 0.1
OFFSETS = {
    "gemma2": 1.0,
    "gemma3_text": 1.0,
    **dict.fromkeys(("olmo2", "olmo3", "exaone4", "glm4", "gemma4_text"), 0.0),
}  # families with a norm behind: what is added to its weight
NORM_OF = {
    "self_attn.o_proj.weight": "post_attention_layernorm.weight",
    "mlp.down_proj.weight": "post_feedforward_layernorm.weight",
    "per_layer_projection.weight": "post_per_layer_input_norm.weight",
}
NORM_OF_GLM4 = {
    "self_attn.o_proj.weight": "post_self_attn_layernorm.weight",
    "mlp.down_proj.weight": "post_mlp_layernorm.weight",
}


def projector(directions_KH: Tensor) -> Tensor:
    """The orthogonal projector onto the directions' span, (H, H), by the pseudo-inverse."""
    directions_KH = directions_KH.double()
    return torch.linalg.pinv(directions_KH) @ directions_KH


def without(weight_HI: Tensor, directions_KH: Tensor, alpha: float = 1.0) -> Tensor:
    """W less alpha times its projection, (H, I) float64."""
    weight_HI = weight_HI.double()
    return weight_HI - alpha * projector(directions_KH) @ weight_HI


def without_in_front(weight_HI: Tensor, directions_KH: Tensor, gain_H: Tensor, alpha: float = 1.0) -> Tensor:
    """W less what makes the norm behind it put out the directions, (H, I) float64.

    W - alpha A (D Q)^T W, where A minimises |D A|^2 + tau^2 |A|^2 under (D Q)^T A = 1: solved as one linear system with Lagrange
    multipliers, D = diag(gain). Gains must not be 0 here.
    """
    gain_H, weight_HI = gain_H.double(), weight_HI.double()
    basis_HK = torch.linalg.svd(directions_KH.double().T, full_matrices=False)[0]
    read_HK = gain_H[:, None] * basis_HK
    width, rank = read_HK.shape
    tau = TAU * gain_H.abs().median()
    system = torch.zeros(width + rank, width + rank, dtype=torch.float64)
    system[:width, :width] = torch.diag(gain_H.square() + tau**2)
    system[:width, width:], system[width:, :width] = read_HK, read_HK.T
    target = torch.zeros(width + rank, rank, dtype=torch.float64)
    target[width:] = torch.eye(rank, dtype=torch.float64)
    write_HK = torch.linalg.solve(system, target)[:width]
    return weight_HI - alpha * write_HK @ (read_HK.T @ weight_HI)


def edited(family: str, name: str, weights: Mapping[str, Tensor], directions_KH: Tensor, alpha: float = 1.0) -> Tensor:
    """An output projection of a tiny model after the edit, in its own shape and dtype, rounded once."""
    weight, axis = weights[name], hidden_axis(family, name, weights[name])
    matrix_HI = weight.movedim(axis, 0).flatten(1)
    if family in OFFSETS:
        norms = NORM_OF_GLM4 if family == "glm4" else NORM_OF
        end = next(end for end in norms if name.endswith(end))
        gain_H = weights[name.removesuffix(end) + norms[end]].double() + OFFSETS[family]
        found_HI = without_in_front(matrix_HI, directions_KH, gain_H, alpha)
    else:
        found_HI = without(matrix_HI, directions_KH, alpha)
    return found_HI.reshape(weight.movedim(axis, 0).shape).movedim(0, axis).to(weight.dtype)


def hidden_axis(family: str, name: str, weight: Tensor) -> int:
    """The axis of the hidden size: -1 for GPT-2's Conv1D, gpt-oss's and Llama 4's experts, 1 for others fused, 0 for Linears."""
    if family == "gpt2" or (family.startswith(("gpt_oss", "llama4")) and weight.dim() == 3):
        return -1
    return 1 if weight.dim() == 3 else 0


def last_places(found: Tensor, expected: Tensor) -> float:
    """The share of values that differ; infinite where one differs by more than two last places and float32's error."""
    size = float(expected.double().square().mean().sqrt())
    near = torch.allclose(found.double(), expected.double(), rtol=2 * torch.finfo(expected.dtype).eps, atol=1e-5 * size)
    return float((found != expected).double().mean()) if near else float("inf")
