"""The window and where rotary frequencies change, as configurations name them."""

from pathlib import Path
from typing import Any

import pytest

from editing.checkpoint import Checkpoint
from engine.errors import EngineError
from engine.models.window import check_engine_window, switch_of, window_of

PHI = {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096, "max_position_embeddings": 131072}


def of(config: dict[str, Any]) -> Checkpoint:
    return Checkpoint(Path("model"), config, {})


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"max_position_embeddings": 64}, 64),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": None, "n_positions": 32}, 32),
        ({}, 2048),
        ({"max_position_embeddings": 4096, "seq_length": 2048}, 2048),
        ({"text_config": {"max_position_embeddings": 128}}, 128),
    ],
)
def test_the_window_is_the_least_that_is_named(config: dict[str, Any], window: int) -> None:
    assert window_of(of(config)) == window


@pytest.mark.parametrize(
    ("config", "switch"),
    [
        (PHI, 4096),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 16}}, 16),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 512}, 512),
        ({"rope_scaling": {"rope_type": "llama3", "original_max_position_embeddings": 8192}}, None),
        ({"rope_scaling": None}, None),
    ],
)
def test_where_frequencies_change(config: dict[str, Any], switch: int | None) -> None:
    assert switch_of(of(config)) == switch


def test_an_engine_window_that_changes_all_frequencies_is_refused() -> None:
    with pytest.raises(EngineError, match=r"vllm.max_model_len = 8192: beyond 4096 vLLM gives every prompt"):
        check_engine_window(of(PHI), 8192)
