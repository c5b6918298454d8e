"""What the probe of a swap measures, and when it says that a swap did not take. Knows tensors, no engine.

The engine's output is compared with what the variant's weights give, and its change with the change that was due: a stale
rank-1 edit is only about 1.8 % of a layer's output at H = 3072, but all of the change.
"""
# N = probe vectors or rows, H = the output's width

from collections.abc import Iterator

import torch
from torch import Tensor

from editing.projection import Removal
from engine.errors import SwapFailed

# Largest ||y - expected|| / ||expected|| of a layer that is right, by the type that rounds most on the way.
PROBE_TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 5e-3, torch.float32: 1e-3}
COPIED = 1e-6  # the same where nothing is multiplied: a bias or a row of an embedding arrives as it was put in
# How far the share of the expected change may be from 1; the old weights give 0, the base between two edits about 1/2.
CHANGE_TOLERANCE = 0.25
TINY = 1e-30  # a bias may be all zeros


def relative(found_NH: Tensor, expected_NH: Tensor) -> Tensor:
    """||found - expected|| / ||expected||, a scalar on their device."""
    return (found_NH - expected_NH).norm() / expected_NH.norm().clamp_min(TINY)


def change_figures(observed_NH: Tensor, expected_NH: Tensor, before_NH: Tensor) -> list[Tensor]:
    """<observed - before, change>, ||change||^2 with change = expected - before, and the size of one expected component.

    The change is taken across the output, not along it: emulated bf16 may cut off where it should round, which makes a whole
    output smaller (by 0.6 % in vLLM's experts on AVX2) and would pass for a change of its length.
    """
    change_NH = expected_NH - before_NH
    change_NH = change_NH - (change_NH * expected_NH).sum() / expected_NH.square().sum().clamp_min(TINY) * expected_NH
    size = expected_NH.norm() / expected_NH.numel() ** 0.5
    return [((observed_NH - before_NH) * change_NH).sum(), change_NH.square().sum(), size]


def share_of_change(arrived: float, squared: float, size: float, tolerance: float) -> float | None:
    """Which part of the expected change is there, of `change_figures`; None where the change drowns in rounding."""
    if squared**0.5 <= 8 * tolerance * size:
        return None
    return arrived / squared


def edited_output(base_output_NH: Tensor, edit: Removal | None) -> Tensor | None:
    """(W0 - alpha A B^T W0) x of the base's output, by arithmetic of its own; None where each vector has its own factor."""
    if edit is None:
        return base_output_NH
    if edit.keep_norms:
        return None
    return base_output_NH - edit.alpha * (base_output_NH @ edit.read_HK) @ edit.write_HK.T


def judge(place: str, figures: Iterator[float], tolerances: tuple[float, float]) -> float:
    """A place's error, of its five figures: of the engine, of the weights, and three of the change.

    Raises SwapFailed where one of them says that the swap did not take.
    """
    error, arithmetic, arrived, squared, size = (next(figures) for _ in range(5))
    of_engine, of_weights = tolerances
    if not error <= of_engine:
        raise SwapFailed(f"{place}: the engine's output is off by {error:.1%} after the swap (at most {of_engine:.1%}).")
    if not arithmetic <= of_weights:
        raise SwapFailed(f"{place}: the edited weights are off by {arithmetic:.1%} (at most {of_weights:.1%}).")
    share = share_of_change(arrived, squared, size, of_engine)
    if share is not None and not abs(share - 1) <= CHANGE_TOLERANCE:
        raise SwapFailed(f"{place}: {share:.0%} of the expected change arrived (100% +- {CHANGE_TOLERANCE:.0%}).")
    return error
