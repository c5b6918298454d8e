"""Streams that are not finite: the message names the first layer and the cause, whichever way they are read."""

import pytest
import torch
from torch import nn

from extraction.directions import extract_directions
from extraction.errors import ExtractionError
from extraction.finite import check_finite
from extraction.rendering import RenderedPair
from tests.tiny import tiny_model

PAIRS = [RenderedPair([1, 5, 9, 4], [1, 7, 3])]
DOWN_PROJ = "model.layers.1.mlp.down_proj.weight"


def with_value(name: str, value: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = tiny_model("llama", dtype)
    model.get_parameter(name).data[3, 5] = value
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_damaged_weight_is_named_with_the_layer_behind_it(value: float) -> None:
    with pytest.raises(ExtractionError, match=f"at layer 2 is not finite: the weight {DOWN_PROJ} holds NaN or infinity"):
        extract_directions(with_value(DOWN_PROJ, value), PAIRS)


def test_an_overflow_of_float16_says_which_type_to_use() -> None:
    model = with_value(DOWN_PROJ, 6e4, torch.float16)
    model.get_parameter("model.layers.1.mlp.down_proj.weight").data[:] = 6e4
    with pytest.raises(ExtractionError, match=r"at layer 2 is not finite: it overflows float16.*model.dtype=bfloat16"):
        extract_directions(model, PAIRS)


def test_an_overflow_of_a_wide_type_asks_for_the_configuration() -> None:
    model = with_value(DOWN_PROJ, 1e38)
    model.get_parameter("model.layers.1.mlp.down_proj.weight").data[:] = 3e38
    with pytest.raises(ExtractionError, match="it overflows float32, though every weight is finite"):
        extract_directions(model, PAIRS)


def test_finite_streams_pass() -> None:
    check_finite(tiny_model("llama"), torch.ones(4, 2, 48))
