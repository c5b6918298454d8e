"""Saved equals ablated, for every family: the folded checkpoint against the base under hooks that project every write."""

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor

from editing import families
from editing.checkpoint import open_checkpoint
from editing.plan import PROJECTIONS, Scope, plan_edit
from tests.ablated import EVERYTHING, INPUT, NORM_BEHIND, directions, distance_over_effect, folded, load
from tests.dense import projector
from tests.tiny import BLOCKS, EDITOR_CONFIGS, save_tiny


@pytest.fixture(scope="module", params=sorted(EDITOR_CONFIGS))
def base_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint of each family, so that what is compared is the formula and not bf16's rounding."""
    return save_tiny(request.param, tmp_path_factory.mktemp("family"), dtype=torch.float32)


@pytest.mark.parametrize("scope", [EVERYTHING, Scope()], ids=["everything", "o_proj+down_proj"])
def test_saved_equals_ablated(base_dir: Path, tmp_path: Path, scope: Scope) -> None:
    if scope == Scope() and open_checkpoint(base_dir).model_type == "gpt_oss":
        scope = Scope(biases=True)  # its experts' biases are weighted by the router, so no hook can tell them from the rest
    family = open_checkpoint(base_dir).model_type
    difference = distance_over_effect(base_dir, tmp_path / "out", scope)
    print(f"{family}: distance of the logits over the edit's effect {difference:.1e}")
    # Behind a norm what is written has the ablated write's direction but the rms of the edited projection.
    assert difference < (0.25 if family in NORM_BEHIND else 2e-5)


def test_nothing_writes_the_directions_after_an_edit_of_everything(base_dir: Path, tmp_path: Path) -> None:
    """The residual stream itself, behind every norm: from the embedding to the last block it has no part along Q."""
    _, _, model = folded(base_dir, tmp_path / "out", EVERYTHING)
    streams: list[Tensor] = []
    body = model.base_model
    for block in getattr(body, "layers", None) or body.h:
        block.register_forward_hook(lambda m, args, output: streams.append(output[0] if isinstance(output, tuple) else output))
    with torch.no_grad():
        model(INPUT)
    leaks = [float((stream.double() @ projector(directions())).norm() / stream.double().norm()) for stream in streams]
    print(f"{model.config.model_type}: largest share along the removed directions {max(leaks):.1e}")
    assert len(leaks) == BLOCKS
    assert max(leaks) < 1e-5


def test_the_plan_names_every_writer_and_why_some_are_left(base_dir: Path) -> None:
    checkpoint = open_checkpoint(base_dir)
    plan = plan_edit(checkpoint)
    assert {tensor.role for tensor in plan.edited} == PROJECTIONS
    assert {tensor.layer for tensor in plan.edited} == set(range(BLOCKS))
    assert all(tensor.reason.startswith("not in the scope; add --") for tensor in plan.writers if tensor.role not in PROJECTIONS)
    assert plan.ties_head == load(base_dir).config.tie_word_embeddings
    writers = {tensor.name for tensor in plan_edit(checkpoint, EVERYTHING).edited}
    assert writers == {tensor.name for tensor in plan.writers}


def test_layers_and_alphas_reach_their_blocks_alone(base_dir: Path) -> None:
    checkpoint = open_checkpoint(base_dir)
    plan = plan_edit(checkpoint, Scope(layers=frozenset({1}), alpha_by_layer={1: 0.5}))
    assert {tensor.layer for tensor in plan.edited} == {1}
    assert {tensor.alpha for tensor in plan.edited} == {0.5}
    left = [tensor for tensor in plan.writers if tensor.role in PROJECTIONS and tensor.layer != 1]
    assert left
    assert all(tensor.reason == "its block is not in --layers-edited" for tensor in left)


def test_families_import_nothing_else_of_editing() -> None:
    folder = Path(families.__file__).parent
    trees = [ast.parse(file.read_text()) for file in folder.glob("*.py")]
    imported = {node.module or "" for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert sorted(name for name in imported if name.startswith("editing") and not name.startswith("editing.families")) == []
