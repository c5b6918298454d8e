"""A variant's identity: what changes weights changes it, and nothing else does."""

from pathlib import Path

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from engine.models.variant import Variant
from engine.paths import hash_of
from tests.dense import OFFSETS
from tests.tiny import HIDDEN, save_tiny


@pytest.mark.parametrize("family", ["llama", "gemma", "phi3", *OFFSETS])
def test_the_operator_in_front_of_norms_is_a_part_of_the_identity_there_alone(family: str, tmp_path: Path) -> None:
    plan = plan_edit(open_checkpoint(save_tiny(family, tmp_path)))
    edit = Edit(orthonormal_basis(torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(0))), 1.0)
    alphas = {tensor.name: 1.0 for tensor in plan.edited}
    identity = {"base": "b" * 64, "basis": edit.basis_hash, "alphas": alphas, "keep_norms": False, "untied": False}
    assert (Variant("any", "b" * 64, plan, edit).hash == hash_of(identity)) == (family not in OFFSETS)


@pytest.mark.parametrize("family", ["llama", "olmo2"])
def test_the_base_has_no_operator(family: str, tmp_path: Path) -> None:
    plan = plan_edit(open_checkpoint(save_tiny(family, tmp_path)))
    identity = {"base": "b" * 64, "basis": None, "alphas": {}, "keep_norms": False, "untied": False}
    assert Variant("base", "b" * 64, plan, None).hash == hash_of(identity)
