"""Damaged files, and files of another form: one EditError that names the file, whoever reads it."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from editing.adapter import read_adapter, write_adapter
from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.record import read_edit, read_record

RECORD: dict[str, Any] = {
    **dict.fromkeys(("variant", "variant_hash", "base_model", "base_hash", "basis_hash", "position", "estimator", "scope"), "x"),
    **{"format": "refusal-edit/1", "alpha": 1.0, "keep_norms": False, "layers": [1], "basis_shape": [48, 2]},
    "tensors": {"model.layers.1.mlp.down_proj.weight": 1.0},
}
MODULE = "base_model.model.model.layers.1.mlp.down_proj"


@pytest.fixture
def adapter(llama_dir: Path, tmp_path: Path) -> Path:
    base = open_checkpoint(llama_dir)
    edit = Edit(orthonormal_basis(torch.randn(2, 48, generator=torch.Generator().manual_seed(1))), 1.0)
    write_adapter(base, plan_edit(base), edit, tmp_path / "adapter", base_model="base", record=RECORD, card="")
    return tmp_path / "adapter"


def changed_json(file: Path, change: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{ half", "edit.json cannot be read as JSON"),
        ("[" * 100_000, "edit.json cannot be read as JSON (it is nested too deeply)"),
        ("[]", "edit.json: expected a JSON object, found list"),
        ("{}", "edit.json has format 'None'; expected 'refusal-edit/1'"),
        (json.dumps({key: value for key, value in RECORD.items() if key != "base_hash"}), "has no field 'base_hash'"),
        (json.dumps(RECORD | {"alpha": "all"}), "'alpha' is not of the form that bin/edit writes"),
        (json.dumps(RECORD | {"alpha": 10**400}), "'alpha' is not of the form"),
        (json.dumps(RECORD | {"tensors": {"w": None}}), "'tensors' is not of the form"),
        (json.dumps(RECORD | {"tensors": []}), "'tensors' is not of the form"),
    ],
)
def test_a_damaged_record_is_named(adapter: Path, content: str, message: str) -> None:
    (adapter / "edit.json").write_text(content)
    with pytest.raises(EditError) as caught:
        read_record(adapter)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no tensor 'basis'"),
        ({"basis": torch.ones(48)}, "holds no tensor 'basis' of (hidden size, directions) in float64"),
        ({"basis": torch.eye(48)}, "in float64"),
        ({"basis": torch.full((48, 1), float("nan"), dtype=torch.float64)}, "The basis is not orthonormal"),
        ({"basis": torch.eye(40, dtype=torch.float64)}, "The basis has width 40; this model's hidden size is 48"),
    ],
)
def test_a_damaged_basis_is_named(adapter: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    save_file(tensors, adapter / "edit" / "basis.safetensors")
    with pytest.raises(EditError) as caught:
        read_edit(adapter, read_record(adapter), 48)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3", "r": None}, "is an adapter of type IA3; expected LORA"),
        ({"r": 0}, "expected r, a whole number from 1 on, and lora_alpha, a number"),
        ({"r": "8"}, "expected r, a whole number from 1 on"),
        ({"lora_alpha": None}, "lora_alpha, a number"),
        ({"use_dora": True}, "is a DoRA"),
    ],
)
def test_another_kind_of_adapter_is_named(adapter: Path, change: dict[str, Any], message: str) -> None:
    changed_json(adapter / "adapter_config.json", change)
    with pytest.raises(EditError) as caught:
        read_adapter(adapter)
    assert message in str(caught.value)


def test_a_rank_stabilised_loras_scale_is_over_the_root_of_its_rank(adapter: Path) -> None:
    plain = read_adapter(adapter)["model.layers.1.mlp.down_proj.weight"][0]
    changed_json(adapter / "adapter_config.json", {"use_rslora": True})
    stabilised = read_adapter(adapter)["model.layers.1.mlp.down_proj.weight"][0]
    assert torch.allclose(stabilised, plain * 2**0.5)


def without_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[f"{MODULE}.lora_A.weight"]


def with_a_vector(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{MODULE}.lora_A.weight"] = torch.ones(3)


def with_another_rank(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{MODULE}.lora_B.weight"] = torch.ones(48, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_one, f"holds more, or less, than both factors of a plain LoRA: see {MODULE}.lora_A.weight"),
        (with_a_vector, f"the factors of {MODULE} are (3,) and (48, 2)"),
        (with_another_rank, f"the factors of {MODULE} are (2, 80) and (48, 5)"),
    ],
)
def test_factors_that_do_not_fit_are_named(
    adapter: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(EditError) as caught:
        read_adapter(adapter)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_half_a_file_of_an_adapter_is_named(adapter: Path, name: str) -> None:
    data = (adapter / name).read_bytes()
    (adapter / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(EditError, match=name):
        read_adapter(adapter)


def with_header(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The folder's weights with another header."""
    file = folder / "model.safetensors"
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    return folder


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {"dtype": "BF16", "shape": [2]},
        {"dtype": "BF16", "shape": [2], "data_offsets": [0]},
        {"dtype": "BF16", "shape": [2], "data_offsets": [4, 0]},
        {"dtype": "BF16", "shape": [-2], "data_offsets": [0, 4]},
        {"dtype": 16, "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "BF16", "shape": "2", "data_offsets": [0, 4]},
    ],
)
def test_a_header_entry_of_another_form_is_named(llama_dir: Path, tmp_path: Path, entry: Any) -> None:
    folder = with_header(shutil.copytree(llama_dir, tmp_path / "copy"), lambda header: header | {"model.norm.weight": entry})
    with pytest.raises(EditError, match=r"entry of model.norm.weight is not dtype, shape and data_offsets"):
        open_checkpoint(folder)


def test_a_header_that_is_no_object_is_named(llama_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(EditError, match="its header is no object"):
        open_checkpoint(with_header(shutil.copytree(llama_dir, tmp_path / "copy"), lambda header: list(header)))


def test_weights_that_safetensors_refuses_are_named_when_they_are_read(llama_dir: Path, tmp_path: Path) -> None:
    def of_another_type(header: dict[str, Any]) -> dict[str, Any]:
        return header | {"model.norm.weight": header["model.norm.weight"] | {"dtype": "F17"}}

    folder = with_header(shutil.copytree(llama_dir, tmp_path / "copy"), of_another_type)
    with pytest.raises(EditError, match="is not readable as safetensors"):
        open_checkpoint(folder).read("model.norm.weight")


@pytest.mark.parametrize("weight_map", [None, [], {}, {"w": None}, {"w": 3}, {"w": "../model.safetensors"}])
def test_an_index_of_another_form_is_named(sharded_dir: Path, tmp_path: Path, weight_map: Any) -> None:
    folder = shutil.copytree(sharded_dir, tmp_path / "copy")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(EditError, match="has no weight_map of tensor names and file names"):
        open_checkpoint(folder)
