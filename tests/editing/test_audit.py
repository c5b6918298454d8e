"""The audit on edits it should find, and on models it should leave alone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from editing.audit import audit
from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.finding import Finding
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.spectrum import gap_count
from editing.writer import write_edited
from tests.tiny import BLOCKS, save_tiny


def edited(base: Path, out: Path, edit: Edit, scope: Scope | None = None) -> Path:
    checkpoint = open_checkpoint(base)
    write_edited(checkpoint, plan_edit(checkpoint, scope), edit, out, record={}, card=lambda proofs: "")
    return out


def random_edit(k: int, alpha: float = 1.0) -> Edit:
    return Edit(orthonormal_basis(torch.randn(k, 48, generator=torch.Generator().manual_seed(k))), alpha)


def alignment(finding: Finding, edit: Edit) -> float:
    return float(torch.linalg.svdvals(edit.basis_HK.T @ finding.directions_HK).min())


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("with_base", [False, True])
def test_erased_directions_are_counted_and_recovered(llama_dir: Path, tmp_path: Path, k: int, with_base: bool) -> None:
    out = edited(llama_dir, tmp_path / "out", random_edit(k))
    finding = audit(open_checkpoint(out), open_checkpoint(llama_dir) if with_base else None)
    print(finding.verdict, finding.count, finding.evidence)
    assert (finding.verdict, finding.count) == ("erased directions", k)
    assert alignment(finding, random_edit(k)) > 0.999
    assert finding.alpha == pytest.approx(1.0, abs=0.02)
    assert set(finding.shares) == set(range(BLOCKS))
    assert max(finding.shares.values()) < 1e-3


@pytest.mark.parametrize("with_base", [False, True])
def test_directions_behind_norms_are_found_in_the_stream(tmp_path: Path, with_base: bool) -> None:
    base = save_tiny("gemma2", tmp_path / "base")
    out = edited(base, tmp_path / "out", random_edit(2))
    finding = audit(open_checkpoint(out), open_checkpoint(base) if with_base else None)
    assert finding.count == 2
    assert alignment(finding, random_edit(2)) > 0.99


@pytest.mark.parametrize("with_base", [False, True])
def test_an_untouched_model_has_none(tiny_dir: Path, with_base: bool) -> None:
    finding = audit(open_checkpoint(tiny_dir), open_checkpoint(tiny_dir) if with_base else None)
    assert finding.verdict == "none found"
    assert finding.count == 0
    assert finding.evidence


def test_edits_of_some_blocks_are_found_and_located(llama_dir: Path, tmp_path: Path) -> None:
    out = edited(llama_dir, tmp_path / "out", random_edit(2), Scope(layers=frozenset({1})))
    finding = audit(open_checkpoint(out))
    assert finding.count == 2
    assert alignment(finding, random_edit(2)) > 0.999
    assert finding.shares[1] < 1e-3 < 0.05 < min(finding.shares[0], finding.shares[2])


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_partial_edits_and_reflections_show_against_the_base(llama_dir: Path, tmp_path: Path, alpha: float) -> None:
    out = edited(llama_dir, tmp_path / "out", random_edit(1, alpha))
    finding = audit(open_checkpoint(out), open_checkpoint(llama_dir))
    assert finding.count == 1
    assert finding.alpha == pytest.approx(alpha, abs=0.02)
    assert alignment(finding, random_edit(1)) > 0.99


def test_a_low_rank_fine_tune_is_no_erasure(llama_dir: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(llama_dir)
    out = edited(llama_dir, tmp_path / "out", random_edit(1))
    weights = load_file(llama_dir / "model.safetensors")
    generator = torch.Generator().manual_seed(4)
    direction = torch.randn(48, 1, generator=generator)
    for tensor in plan_edit(checkpoint).edited:  # the same written direction everywhere, but nothing removed
        update = direction @ torch.randn(1, tensor.shape[1], generator=generator)
        weights[tensor.name] = (weights[tensor.name].float() + 0.05 * update).bfloat16()
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    finding = audit(open_checkpoint(out), checkpoint)
    print(finding.evidence)
    assert finding.verdict == "none found"


def test_another_models_base_is_refused(llama_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(EditError, match="is not the base of"):
        audit(open_checkpoint(llama_dir), open_checkpoint(save_tiny("phi3", tmp_path / "other")))


def test_the_gap_is_counted_from_below() -> None:
    spectrum = torch.cat([torch.tensor([1e-6, 2e-6, 3e-6]), torch.linspace(0.4, 2.0, 61)])
    assert gap_count(spectrum) == 3
    assert gap_count(torch.linspace(0.4, 2.0, 64)) == 0
