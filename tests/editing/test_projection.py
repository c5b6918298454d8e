"""The edit's arithmetic against dense float64 maths."""

from dataclasses import replace

import pytest
import torch

from editing.errors import EditError
from editing.projection import BLOCK, Edit, check_edit, orthonormal_basis, project_out

H, WIDTH = 40, 4 * BLOCK + 37


def random_edit(k: int, alpha: float = 1.0) -> Edit:
    return Edit(orthonormal_basis(torch.randn(k, H, generator=torch.Generator().manual_seed(k))), alpha)


def random_weight(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(H, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("k", "alpha"), [(1, 1.0), (5, 1.0), (3, 0.5), (2, 2.0)])
def test_edit_equals_the_dense_projector_rounded_once(dtype: torch.dtype, k: int, alpha: float) -> None:
    edit, weight = random_edit(k, alpha), random_weight(dtype)
    projector = torch.eye(H, dtype=torch.float64) - alpha * edit.basis_HK @ edit.basis_HK.T
    expected = (projector @ weight.double()).to(dtype)
    found = project_out(weight, edit)
    print(f"{int((found != expected).sum())} of {found.numel()} values differ in the last place")
    assert found.dtype == dtype
    assert found.is_contiguous()
    assert int((found != expected).sum()) <= found.numel() // 1000  # float32's arithmetic near ties of the last rounding


@pytest.mark.parametrize("k", [1, 5])
def test_a_slice_of_the_columns_gives_the_same_bits(k: int) -> None:
    edit, weight = random_edit(k), random_weight(torch.bfloat16)
    whole = project_out(weight, edit)
    for width in (BLOCK, 2 * BLOCK, 344):
        slices = [project_out(weight[:, start : start + width], edit) for start in range(0, WIDTH, width)]
        assert torch.equal(whole, torch.cat(slices, dim=1)), width


def test_every_axis_is_the_same_edit() -> None:
    edit, weight_HI = random_edit(3), random_weight(torch.bfloat16)[:, :300]
    expected = project_out(weight_HI, edit)
    assert torch.equal(project_out(weight_HI.T.contiguous(), edit, axis=-1).T, expected)
    experts_EHI = torch.stack([weight_HI, -weight_HI])
    assert torch.equal(project_out(experts_EHI, edit, axis=1), torch.stack([expected, -expected]))
    torch.testing.assert_close(project_out(weight_HI[:, 0], edit, axis=-1), expected[:, 0])


def test_keeping_norms_keeps_them_and_the_direction_stays_out() -> None:
    edit, weight = replace(random_edit(2), keep_norms=True), random_weight(torch.float32)
    edited = project_out(weight, edit)
    torch.testing.assert_close(edited.norm(dim=0), weight.norm(dim=0))
    assert float((edit.basis_HK.T @ edited.double()).norm() / edited.double().norm()) < 1e-6
    torch.testing.assert_close(project_out(weight.T.contiguous(), edit, axis=-1).T, edited)


def test_rescaling_rows_puts_the_direction_back() -> None:
    """Why it is not offered: a row is one coordinate of what is written, and scaling coordinates turns the vectors."""
    edit, weight = random_edit(1), random_weight(torch.float32).double()
    removed = weight - edit.basis_HK @ (edit.basis_HK.T @ weight)
    rescaled = removed * (weight.norm(dim=1) / removed.norm(dim=1))[:, None]
    back = float((edit.basis_HK.T @ rescaled).norm() / (edit.basis_HK.T @ weight).norm())
    print(f"{back:.1%} of the direction is back")
    assert back > 0.01


def test_a_reflection_flips_the_direction_and_undoes_itself() -> None:
    edit, weight = random_edit(1, alpha=2.0), random_weight(torch.float32)
    reflected = project_out(weight, edit)
    torch.testing.assert_close(edit.basis_HK.T @ reflected.double(), -(edit.basis_HK.T @ weight.double()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(project_out(reflected, edit), weight, atol=1e-6, rtol=1e-5)


def test_what_is_left_of_the_direction_is_rounding_alone() -> None:
    edit, weight = random_edit(1), random_weight(torch.bfloat16)
    left = (edit.basis_HK.T @ project_out(weight, edit).double()).norm() / (edit.basis_HK.T @ weight.double()).norm()
    in_bf16 = edit.basis_HK.bfloat16()
    naive = weight - in_bf16 @ (in_bf16.T @ weight)
    left_naive = (edit.basis_HK.T @ naive.double()).norm() / (edit.basis_HK.T @ weight.double()).norm()
    print(f"left: {left:.2%}; all in bf16: {left_naive:.2%}")
    assert left < 0.0025 < left_naive


def test_directions_that_are_not_orthogonal_are_all_removed() -> None:
    first, second = torch.randn(2, H, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    directions = torch.stack([first, first + 0.3 * second])
    edited = project_out(random_weight(torch.float32), Edit(orthonormal_basis(directions), 1.0))
    assert float((directions @ edited.double()).norm() / edited.double().norm()) < 1e-6


def test_fewer_dimensions_than_directions_take_the_leading_ones() -> None:
    directions = torch.randn(4, H, generator=torch.Generator().manual_seed(5)).double()
    basis = orthonormal_basis(directions, k=2)
    units = directions / directions.norm(dim=1, keepdim=True)
    captured = (units @ basis).square().sum()
    top = torch.linalg.svdvals(units)[:2].square().sum()
    torch.testing.assert_close(captured, top)


@pytest.mark.parametrize(
    ("directions", "k", "message"),
    [
        (torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]), None, "direction 1 depends linearly"),
        (torch.tensor([[1.0, float("nan"), 0.0]]), None, "not finite"),
        (torch.eye(3)[:2], 3, "k = 3, but 2 direction"),
        (torch.eye(3)[:2], 0, "k = 0, but 2 direction"),
    ],
)
def test_unfit_directions_are_refused(directions: torch.Tensor, k: int | None, message: str) -> None:
    with pytest.raises(EditError, match=message):
        orthonormal_basis(directions, k=k)


def test_unfit_edits_are_refused() -> None:
    with pytest.raises(EditError, match="width 40; this model's hidden size is 41"):
        check_edit(random_edit(2), 41)
    with pytest.raises(EditError, match="not orthonormal"):
        check_edit(Edit(random_edit(2).basis_HK * 1.01, 1.0), H)
    with pytest.raises(EditError, match="alpha must be a finite number"):
        check_edit(Edit(random_edit(2).basis_HK, float("nan")), H)


def test_the_basis_hash_tells_bases_apart() -> None:
    assert random_edit(2).basis_hash == random_edit(2).basis_hash != random_edit(3).basis_hash
