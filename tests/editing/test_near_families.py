"""The families near another one: saved equals ablated, tensors of a model that is more than its text, ties and counts."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from editing.checkpoint import open_checkpoint
from editing.families import FAMILIES
from editing.plan import PROJECTIONS, Scope, plan_edit
from tests.ablated import EVERYTHING, NORM_BEHIND, distance_over_effect
from tests.tiny import BLOCKS, NEAR_CONFIGS, save_tiny


@pytest.fixture(scope="module", params=sorted(NEAR_CONFIGS))
def base_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(request.param, tmp_path_factory.mktemp("family"), dtype=torch.float32)


@pytest.mark.parametrize("scope", [EVERYTHING, pytest.param(Scope(), marks=pytest.mark.slow)], ids=["everything", "default"])
def test_saved_equals_ablated(base_dir: Path, tmp_path: Path, scope: Scope) -> None:
    difference = distance_over_effect(base_dir, tmp_path / "out", scope)
    family = open_checkpoint(base_dir).model_type
    print(f"{family}: distance of the logits over the edit's effect {difference:.1e}")
    assert difference < (0.25 if family in NORM_BEHIND else 2e-5)


def test_every_block_has_an_edited_writer_of_each_role(base_dir: Path) -> None:
    plan = plan_edit(open_checkpoint(base_dir))
    found = {(tensor.layer, tensor.role) for tensor in plan.edited}
    assert found == {(layer, role) for layer in range(BLOCKS) for role in PROJECTIONS}


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_the_default_of_tying_is_transformers(model_type: str) -> None:
    """Of a config.json that does not say."""
    assert FAMILIES[model_type].ties_by_default == AutoConfig.for_model(model_type).tie_word_embeddings


def test_blocks_that_predict_ahead_are_outside() -> None:
    deepseek = FAMILIES["deepseek_v3"]
    assert deepseek.classify("model.layers.61.shared_head.head.weight", num_layers=61).writer is None
    assert deepseek.classify("model.layers.60.shared_head.head.weight", num_layers=61) is None
