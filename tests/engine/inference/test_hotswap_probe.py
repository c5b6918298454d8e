"""Why the probe looks at the share of the change: at the width of a 3B model a stale edit hides in the error as a whole."""

import pytest
import torch
from torch import Tensor

from editing.projection import Edit, orthonormal_basis, project_out
from engine.inference.probing import CHANGE_TOLERANCE, PROBE_TOLERANCE, change_figures, relative, share_of_change
from tests.dense import without

H, WIDTH = 3072, 256
TOLERANCE = PROBE_TOLERANCE[torch.bfloat16]


def share(observed_PH: Tensor, expected_PH: Tensor, before_PH: Tensor) -> float | None:
    return share_of_change(*(float(figure) for figure in change_figures(observed_PH, expected_PH, before_PH)), TOLERANCE)


@pytest.mark.parametrize(("alpha", "is_stale"), [(1.0, True), (1.0, False), (0.5, True), (0.5, False)])
def test_a_stale_rank_one_edit_is_seen_at_the_width_of_a_3b_model(alpha: float, is_stale: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight_HI = torch.randn(H, WIDTH, generator=generator).bfloat16()
    probe_PI = torch.randn(8, WIDTH, generator=generator).bfloat16()
    direction_1H = torch.randn(1, H, generator=generator)
    edit = Edit(orthonormal_basis(direction_1H), alpha)
    in_engine_HI = weight_HI if is_stale else project_out(weight_HI, edit)
    observed_PH = (probe_PI.float() @ in_engine_HI.float().T).bfloat16().double()
    before_PH = probe_PI.double() @ weight_HI.double().T
    expected_PH = without(before_PH.T, direction_1H, alpha).T
    error = float((observed_PH - expected_PH).norm() / expected_PH.norm())
    arrived = share(observed_PH, expected_PH, before_PH)
    print(f"alpha {alpha}, stale {is_stale}: error {error:.2%}, share of the change {arrived}")
    assert error < 1.2 * TOLERANCE
    assert (abs(arrived - 1) > CHANGE_TOLERANCE) == is_stale


def test_a_change_below_rounding_has_no_share() -> None:
    output_PH = torch.randn(8, H, generator=torch.Generator().manual_seed(1)).double()
    assert share(output_PH, output_PH, output_PH) is None


def test_an_output_that_is_a_little_short_is_no_missing_change() -> None:
    """Emulated bf16 cuts off; the change here is of the output's length alone, by a tenth of what is cut off."""
    output_PH = torch.randn(8, H, generator=torch.Generator().manual_seed(1)).double()
    assert share(0.994 * output_PH, output_PH, 1.0006 * output_PH) is None


def test_a_rank_one_edit_of_an_output_that_is_a_little_short_is_seen_whole() -> None:
    generator = torch.Generator().manual_seed(2)
    output_PH, direction_1H = torch.randn(8, H, generator=generator).double(), torch.randn(1, H, generator=generator)
    expected_PH = without(output_PH.T, direction_1H).T
    assert share(0.994 * expected_PH, expected_PH, output_PH) == pytest.approx(1, abs=0.01)


def test_zeros_that_arrive_have_no_error() -> None:
    assert relative(torch.zeros(1, H), torch.zeros(1, H)) == 0


def test_zeros_that_do_not_arrive_are_an_error() -> None:
    assert relative(torch.full((1, H), 1e-3), torch.zeros(1, H)) > 1
