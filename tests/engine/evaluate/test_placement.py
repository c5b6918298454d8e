"""How wide an engine is: Llama-3-70B's sizes on the cards of the design's table, counted by hand."""

import pytest

from engine.errors import EngineError
from engine.evaluate.placement import width_of

GB = 10**9
WEIGHTS, W0, HEADS = 141 * GB, 48 * GB, [64, 8]
H100, H200 = 80 * GB, 141 * GB


@pytest.mark.parametrize(("card", "expected"), [(H100, 4), (H200, 2)])
def test_seventy_billion_take_four_h100_or_two_h200(card: int, expected: int) -> None:
    assert width_of(WEIGHTS, W0, heads=HEADS, card=card, most=8, share=0.92)[0] == expected


def test_the_reason_gives_what_is_left() -> None:
    """0.92 x 80 - (141 + 48) / 4 = 26.35."""
    reason = width_of(WEIGHTS, W0, heads=HEADS, card=H100, most=8, share=0.92)[1]
    assert reason == "weights 35.2 GB and W0 12.0 GB a GPU leave 26 of 80 GB for the cache"


def test_three_billion_take_one() -> None:
    assert width_of(6 * GB, 2 * GB, heads=[24, 8], card=24 * GB, most=8, share=0.92)[0] == 1


def test_heads_that_do_not_divide_leave_a_width_out() -> None:
    assert width_of(30 * GB, 8 * GB, heads=[12, 3], card=48 * GB, most=8, share=0.92)[0] == 1


def test_the_widest_there_is_serves_where_a_fifth_cannot_be_had() -> None:
    assert width_of(16 * GB, 4 * GB, heads=[32, 8], card=24 * GB, most=1, share=0.92)[0] == 1


def test_a_model_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(EngineError, match=r"On 2 GPU.*leave nothing for a cache"):
        width_of(WEIGHTS, W0, heads=HEADS, card=H100, most=2, share=0.92)
