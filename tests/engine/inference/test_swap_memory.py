"""What a hot swap keeps beside the model, counted by hand: experts always, embeddings and biases where they are edited."""

from pathlib import Path
from typing import Any

import pytest
import torch

from editing.checkpoint import Checkpoint, open_checkpoint
from editing.plan import Scope, plan_edit
from engine.configs.load import load_config, validate
from engine.inference.arguments import kept_bytes, share_beside_swaps
from tests.tiny import save_tiny

PROJECTIONS = 3 * (96 * 256 + 5 * 64 * 96) * 4  # o_proj and five experts of three blocks, float32
EMBEDDINGS, BIASES = 101 * 96 * 4, 3 * (96 + 5 * 96) * 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save_tiny("gpt_oss served", tmp_path_factory.mktemp("model"), dtype=torch.float32))


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope(), PROJECTIONS),
        (Scope(embeddings=True), PROJECTIONS + EMBEDDINGS),
        (Scope(biases=True), PROJECTIONS + BIASES),
    ],
)
def test_every_tensor_that_is_exchanged_is_counted(checkpoint: Checkpoint, scope: Scope, expected: int) -> None:
    assert kept_bytes(checkpoint, plan_edit(checkpoint, scope)) == expected


@pytest.mark.parametrize(
    ("edit", "vllm", "kept"),
    [
        ({}, {}, PROJECTIONS),
        ({"embeddings": True, "biases": True}, {}, PROJECTIONS + EMBEDDINGS + BIASES),
        ({}, {"tensor_parallel_size": 2}, PROJECTIONS / 2),
    ],
)
def test_what_is_kept_is_taken_off_vllms_share(
    checkpoint: Checkpoint, edit: dict[str, Any], vllm: dict[str, Any], kept: float
) -> None:
    folder: Path = checkpoint.directory
    table = {"variant": "tiny", "model": {"path": str(folder)}, "directions": {"layers": [1]}, "edit": edit}
    config = validate({**table, "vllm": {"gpu_memory_utilization": 0.9, **vllm}}, "a test")
    share = share_beside_swaps(config, folder, 10**7)["gpu_memory_utilization"]
    assert share == pytest.approx(0.9 - kept / 10**7, abs=1e-3)


def test_an_engine_that_edits_nothing_keeps_its_whole_share(tmp_path: Path) -> None:
    config = load_config("smollm2_135m_k1", {"edit.form": "runtime"})
    assert share_beside_swaps(config, save_tiny("llama", tmp_path), 10**7) == {}
