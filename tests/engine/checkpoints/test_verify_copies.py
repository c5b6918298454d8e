"""`bin/edit --verify` and `--merge` on copies, and on damaged folders: told by their values, refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from editing.adapter import write_adapter
from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.checkpoints.merge import merge_adapter
from engine.checkpoints.verify import verify_checkpoint
from engine.errors import EngineError
from engine.models.locate import checkpoint_hash
from tests.tiny import save_tiny

Tensors = dict[str, Tensor]
EDIT = Edit(orthonormal_basis(torch.randn(2, 48, generator=torch.Generator().manual_seed(5))), 1.0)
OURS = ("edit.json", "README.md", "edit_report.json")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))


def record_of(base_dir: Path) -> dict[str, Any]:
    base = open_checkpoint(base_dir)
    texts = dict.fromkeys(("variant", "variant_hash", "base_model", "basis_hash", "position", "estimator", "scope"), "x")
    fields = {"format": "refusal-edit/1", "alpha": 1.0, "keep_norms": False, "layers": [1], "basis_shape": [48, 2]}
    return {
        **texts,
        **fields,
        "base_hash": checkpoint_hash(base),
        "tensors": {tensor.name: 1.0 for tensor in plan_edit(base).edited},
    }


def edited(base_dir: Path, out: Path) -> Path:
    base = open_checkpoint(base_dir)
    write_edited(base, plan_edit(base), EDIT, out, record=record_of(base_dir), card=lambda proofs: "")
    return out


def adapted(base_dir: Path, out: Path) -> Path:
    base = open_checkpoint(base_dir)
    write_adapter(base, plan_edit(base), EDIT, out, base_model="x", record=record_of(base_dir), card="")
    return out


def changed(folder: Path, change: Callable[[Tensors], Tensors], name: str = "model.safetensors") -> Path:
    save_file(change(load_file(folder / name)), folder / name, {"format": "pt"})
    return folder


def as_float16(tensors: Tensors) -> Tensors:
    return {name: value.to(torch.float16) for name, value in tensors.items()}


def padded(tensors: Tensors) -> Tensors:
    extra = torch.zeros(27, 48, dtype=torch.bfloat16)
    return {name: torch.cat([value, extra]) if value.shape == (101, 48) else value for name, value in tensors.items()}


@pytest.mark.parametrize(("change", "kind"), [(as_float16, "converted"), (padded, "padded")])
def test_our_edit_verifies_in_a_copy(llama_dir: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], kind: str) -> None:
    report = verify_checkpoint(changed(edited(llama_dir, tmp_path / "out"), change), llama_dir)
    assert report["ok"] and len(report["proofs"]) == len(report["differing"]) == 6
    assert report[kind]


@pytest.mark.parametrize("change", [as_float16, padded])
def test_an_edit_made_elsewhere_is_recovered_from_a_copy(
    llama_dir: Path, tmp_path: Path, change: Callable[[Tensors], Tensors]
) -> None:
    out = changed(edited(llama_dir, tmp_path / "out"), change)
    for name in OURS:
        (out / name).unlink()
    report = verify_checkpoint(out, llama_dir)
    assert "2 direction(s) recovered from the difference" in report["note"]
    assert len(report["differing"]) == 6


def test_a_tensor_of_another_shape_is_listed_beside_the_rest(llama_dir: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        name = "model.layers.1.self_attn.q_proj.weight"
        return tensors | {name: tensors[name][:, :40].contiguous()}

    report = verify_checkpoint(changed(edited(llama_dir, tmp_path / "out"), change), llama_dir)
    assert list(report["odd"]) == ["model.layers.1.self_attn.q_proj.weight"]
    assert len(report["proofs"]) == 6
    assert not report["ok"]


def test_another_model_is_reported_whole(llama_dir: Path, tmp_path: Path) -> None:
    report = verify_checkpoint(save_tiny("qwen2", tmp_path / "other"), llama_dir)
    assert report["note"].startswith("made elsewhere; what it removed cannot be told: ")
    assert len(report["odd"]) == 3
    assert not report["ok"]


def test_an_adapter_merges_to_what_verifies(llama_dir: Path, tmp_path: Path) -> None:
    merge_adapter(adapted(llama_dir, tmp_path / "adapter"), llama_dir, tmp_path / "merged")
    assert verify_checkpoint(tmp_path / "merged", llama_dir)["ok"]


@pytest.mark.parametrize("content", ["{ half", "{}", "[]"])
def test_a_damaged_record_is_refused_by_both(llama_dir: Path, tmp_path: Path, content: str) -> None:
    out, adapter = edited(llama_dir, tmp_path / "out"), adapted(llama_dir, tmp_path / "adapter")
    for folder in (out, adapter):
        (folder / "edit.json").write_text(content)
    with pytest.raises(EditError, match=r"out/edit.json"):
        verify_checkpoint(out, llama_dir)
    with pytest.raises(EditError, match=r"adapter/edit.json"):
        merge_adapter(adapter, llama_dir, tmp_path / "merged")


def test_a_base_in_another_type_is_another_base(llama_dir: Path, tmp_path: Path) -> None:
    copy = changed(shutil.copytree(llama_dir, tmp_path / "copy"), as_float16)
    with pytest.raises(EngineError, match="a copy of it in another type, or with another vocabulary, is another base"):
        merge_adapter(adapted(llama_dir, tmp_path / "adapter"), copy, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_that_lacks_a_tensor_of_its_record_is_refused(llama_dir: Path, tmp_path: Path) -> None:
    def without_block(tensors: Tensors) -> Tensors:
        return {name: value for name, value in tensors.items() if ".layers.1.mlp" not in name}

    adapter = changed(adapted(llama_dir, tmp_path / "adapter"), without_block, "adapter_model.safetensors")
    with pytest.raises(EditError, match=r"weights lack model.layers.1.mlp.down_proj.weight \(1 in all\)"):
        merge_adapter(adapter, llama_dir, tmp_path / "merged")


def test_a_record_of_a_tensor_that_the_base_lacks_is_refused(llama_dir: Path, tmp_path: Path) -> None:
    out = edited(llama_dir, tmp_path / "out")
    record = json.loads((out / "edit.json").read_text())
    (out / "edit.json").write_text(json.dumps(record | {"tensors": {"model.layers.9.mlp.down_proj.weight": 1.0}}))
    with pytest.raises(EngineError, match=r"names model.layers.9.mlp.down_proj.weight, which is no tensor of the base"):
        verify_checkpoint(out, llama_dir)
