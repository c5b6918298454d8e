"""Copies of a base in another type or with a padded vocabulary: compared by their values, every odd tensor listed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from editing.checkpoint import Checkpoint, open_checkpoint
from editing.compare import differing_tensors, prove_against
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited

NORM, EMBEDDING, Q_PROJ = "model.norm.weight", "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"
Tensors = dict[str, Tensor]


def copy_with(folder: Path, copy: Path, change: Callable[[Tensors], Tensors]) -> Checkpoint:
    shutil.copytree(folder, copy)
    save_file(change(load_file(copy / "model.safetensors")), copy / "model.safetensors", {"format": "pt"})
    return open_checkpoint(copy)


def as_type(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value.to(dtype) for name, value in tensors.items()}


def padded(tensors: Tensors) -> Tensors:
    return {
        name: torch.cat([value, torch.zeros(27, 48, dtype=value.dtype)]) if value.shape == (101, 48) else value
        for name, value in tensors.items()
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_copy_in_another_type_differs_nowhere(llama_dir: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    base = open_checkpoint(llama_dir)
    found = differing_tensors(copy_with(llama_dir, tmp_path / "copy", as_type(dtype)), base)
    assert (found.differing, found.odd, found.converted) == ([], {}, sorted(base.tensors))


def test_a_padded_vocabulary_is_listed_and_differs_nowhere(llama_dir: Path, tmp_path: Path) -> None:
    found = differing_tensors(copy_with(llama_dir, tmp_path / "copy", padded), open_checkpoint(llama_dir))
    assert (found.differing, found.odd, found.padded) == ([], {}, ["lm_head.weight", EMBEDDING])


def test_a_changed_tensor_shows_in_a_copy_of_another_type_and_vocabulary(llama_dir: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        return padded(as_type(torch.float16)(tensors | {NORM: tensors[NORM] * 1.5}))

    assert differing_tensors(copy_with(llama_dir, tmp_path / "copy", change), open_checkpoint(llama_dir)).differing == [NORM]


def test_every_tensor_that_cannot_be_compared_is_listed_with_both_forms(llama_dir: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        return tensors | {Q_PROJ: tensors[Q_PROJ][:, :40].contiguous(), NORM: tensors[NORM].to(torch.int32)}

    found = differing_tensors(copy_with(llama_dir, tmp_path / "copy", change), open_checkpoint(llama_dir))
    assert found.odd == {
        Q_PROJ: "(64, 40) BF16 here, (64, 48) BF16 in the base",
        NORM: "(48,) I32 here, (48,) BF16 in the base",
    }


def test_an_edit_holds_in_a_copy_of_another_type(llama_dir: Path, tmp_path: Path) -> None:
    base = open_checkpoint(llama_dir)
    plan, edit = plan_edit(base), Edit(orthonormal_basis(torch.randn(2, 48, generator=torch.Generator().manual_seed(3))), 1.0)
    write_edited(base, plan, edit, tmp_path / "out", record={}, card=lambda proofs: "")
    copy = copy_with(tmp_path / "out", tmp_path / "copy", as_type(torch.float16))
    assert differing_tensors(copy, base).differing == sorted(tensor.name for tensor in plan.edited)
    proofs = prove_against(copy, base, plan.edited, edit)
    assert [proof.tensor for proof in proofs if not proof.holds] == []
    assert [proof.tensor for proof in prove_against(base, base, plan.edited, edit) if proof.holds] == []


def test_a_missing_tensor_is_not_proven_and_stops_nothing(llama_dir: Path, tmp_path: Path) -> None:
    base = open_checkpoint(llama_dir)
    plan, edit = plan_edit(base), Edit(orthonormal_basis(torch.randn(1, 48, generator=torch.Generator().manual_seed(3))), 1.0)
    gone = plan.edited[0].name
    copy = copy_with(llama_dir, tmp_path / "copy", lambda tensors: {k: v for k, v in tensors.items() if k != gone})
    assert [proof.tensor for proof in prove_against(copy, base, plan.edited, edit)] == [t.name for t in plan.edited[1:]]
