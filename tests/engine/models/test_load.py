"""The text tower of a model with several: loaded alone it is what it is among them, before and after an edit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from editing.checkpoint import Checkpoint, open_checkpoint
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.models.folded import FoldedModel
from engine.models.load import causal_model
from tests.dense import projector
from tests.tiny import BLOCKS, HIDDEN
from tests.towers import TOWER_CONFIGS, save_towers, whole_logits

INPUT = torch.tensor([[1, 5, 9, 17, 33, 80, 4]])
DIRECTIONS = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(2))
EDIT = Edit(orthonormal_basis(DIRECTIONS), 1.0)
USUAL = ("gemma3", "qwen2_5_vl", "qwen3_5")


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=[] if n in USUAL else pytest.mark.slow) for n in sorted(TOWER_CONFIGS)]
)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save_towers(request.param, tmp_path_factory.mktemp("towers")))


def alone(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.no_grad():
        return causal_model(checkpoint, dtype=torch.float32, attn_implementation="eager")(INPUT).logits


def test_the_text_tower_alone_is_what_it_is_among_the_others(base: Checkpoint) -> None:
    assert torch.allclose(alone(base), whole_logits(base.directory, INPUT), atol=1e-5)


def test_every_block_of_the_text_and_nothing_else_is_edited(base: Checkpoint) -> None:
    plan = plan_edit(base)
    assert {tensor.layer for tensor in plan.edited} == set(range(BLOCKS))
    assert not any("vis" in tensor.name for tensor in plan.writers)


def test_an_edited_folder_and_a_folded_model_are_one(base: Checkpoint, tmp_path: Path) -> None:
    """The folder goes through the loader of all towers, the fold into the tower that was loaded alone."""
    plan = plan_edit(base)
    write_edited(base, plan, EDIT, tmp_path / "out", record={}, card=lambda proofs: "card")
    model = causal_model(base, dtype=torch.float32, attn_implementation="eager")
    before = model(INPUT).logits
    FoldedModel(model, base, plan).fold(EDIT)
    with torch.no_grad():
        after = model(INPUT).logits
    assert torch.allclose(after, whole_logits(tmp_path / "out", INPUT), atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)


def test_an_edited_projection_writes_nothing_along_the_directions(base: Checkpoint, tmp_path: Path) -> None:
    plan = plan_edit(base)
    write_edited(base, plan, EDIT, tmp_path / "out", record={}, card=lambda proofs: "card")
    written = load_file(tmp_path / "out" / "model.safetensors")
    plain = [tensor for tensor in plan.edited if tensor.gain is None and tensor.axis == 0]
    leaks = [float((projector(DIRECTIONS) @ written[tensor.name].double()).norm()) for tensor in plain]
    assert max(leaks, default=0.0) < 1e-5
