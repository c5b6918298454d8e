"""Opening a checkpoint folder: what is read, and what is refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.plan import plan_edit


def copy_of(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target / "copy"))


def test_headers_give_every_tensor_with_its_bytes(sharded_dir: Path) -> None:
    checkpoint = open_checkpoint(sharded_dir)
    assert len(checkpoint.files) > 2
    for file in checkpoint.files:
        raw = file.read_bytes()
        for name, tensor in load_file(file).items():
            entry = checkpoint.tensors[name]
            assert entry.shape == tuple(tensor.shape)
            assert raw[entry.begin : entry.end] == tensor.view(torch.uint8).flatten().numpy().tobytes()
            assert torch.equal(checkpoint.read(name), tensor)


def test_the_hash_changes_with_one_bit(llama_dir: Path, tmp_path: Path) -> None:
    copied = copy_of(llama_dir, tmp_path)
    assert open_checkpoint(copied).hash == open_checkpoint(llama_dir).hash
    data = bytearray((copied / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copied / "model.safetensors").write_bytes(data)
    assert open_checkpoint(copied).hash != open_checkpoint(llama_dir).hash


def test_the_hash_does_not_depend_on_how_tensors_are_spread_over_files(llama_dir: Path, tmp_path: Path) -> None:
    copied = copy_of(llama_dir, tmp_path)
    tensors = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    halves = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
    for file, names in halves.items():
        save_file({name: tensors[name] for name in names}, copied / file)
    places = {name: file for file, names in halves.items() for name in names}
    (copied / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert open_checkpoint(copied).hash == open_checkpoint(llama_dir).hash


@pytest.mark.parametrize(("key", "value", "same"), [("transformers_version", "9.9", True), ("rms_norm_eps", 0.5, False)])
def test_the_hash_is_of_the_settings_and_not_of_who_wrote_them(
    key: str, value: object, same: bool, llama_dir: Path, tmp_path: Path
) -> None:
    copied = copy_of(llama_dir, tmp_path)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {key: value}))
    assert (open_checkpoint(copied).hash == open_checkpoint(llama_dir).hash) is same


def break_file(directory: Path, how: str) -> None:
    weights = directory / "model.safetensors"
    config = json.loads((directory / "config.json").read_text())
    tensors = load_file(weights)
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "no safetensors":
        weights.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!")
    elif how == "pickle":
        weights.rename(directory / "pytorch_model.bin")
    elif how == "gguf":
        weights.rename(directory / "model.gguf")
    elif how == "no weights":
        weights.unlink()
    elif how == "no config":
        (directory / "config.json").unlink()
    elif how == "no sizes":
        (directory / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": "three"}))
    elif how == "quantised":
        (directory / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    elif how == "unknown type":
        (directory / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    elif how == "unknown writer":
        save_file(tensors | {"model.layers.0.mlp.experts.down_proj": torch.zeros(2, 48, 80)}, weights)
    elif how == "missing writer":
        del tensors["model.layers.1.mlp.down_proj.weight"]
        save_file(tensors, weights)
    elif how == "wrong axis":
        tensors["model.layers.1.mlp.down_proj.weight"] = tensors["model.layers.1.mlp.down_proj.weight"].T.contiguous()
        save_file(tensors, weights)
    elif how == "fp8":
        name = "model.layers.1.mlp.down_proj.weight"
        save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, weights)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "It is truncated: copy or download it again"),
        ("no safetensors", "is truncated or not safetensors|header is not JSON"),
        ("pickle", "holds pickled weights, which are not opened"),
        ("gguf", "is GGUF"),
        ("no weights", r"holds no \*.safetensors"),
        ("no config", "has no config.json"),
        ("no sizes", "num_hidden_layers is 'three'; expected a positive whole number"),
        ("quantised", r"is quantised \(gptq\)"),
        ("unknown type", "Model type 'mamba' is not known to the editor"),
        ("unknown writer", "such as model.layers.0.mlp.experts.down_proj, are of no layout that family llama has"),
        ("missing writer", "block 1 has no mlp output projection"),
        ("wrong axis", r"has shape \(80, 48\); expected the hidden size 48 on axis 0"),
        ("fp8", "is stored as F8_E4M3"),
    ],
)
def test_a_checkpoint_that_cannot_be_edited_is_refused_by_name(llama_dir: Path, tmp_path: Path, how: str, message: str) -> None:
    directory = copy_of(llama_dir, tmp_path)
    break_file(directory, how)
    with pytest.raises(EditError, match=message):
        plan_edit(open_checkpoint(directory))


def test_layer_ten_is_not_layer_one(tmp_path: Path, llama_dir: Path) -> None:
    directory = copy_of(llama_dir, tmp_path)
    config = json.loads((directory / "config.json").read_text())
    tensors = load_file(directory / "model.safetensors")
    many = {name.replace("layers.1.", f"layers.{layer}."): t.clone() for name, t in tensors.items() for layer in range(3, 12)}
    save_file(tensors | many, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 12}))
    assert len(plan_edit(open_checkpoint(directory)).edited) == 24


def test_missing_shards_and_absent_tensors_are_named(sharded_dir: Path, tmp_path: Path) -> None:
    directory = copy_of(sharded_dir, tmp_path)
    index = directory / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["model.layers.9.mlp.down_proj.weight"] = "model-00001-of-00001.safetensors"
    index.write_text(json.dumps(table))
    with pytest.raises(EditError, match=r"missing: model-00001-of-00001.safetensors"):
        open_checkpoint(directory)
    table["weight_map"]["model.layers.9.mlp.down_proj.weight"] = open_checkpoint(sharded_dir).files[0].name
    index.write_text(json.dumps(table))
    with pytest.raises(EditError, match=r"no shard holds: model.layers.9.mlp.down_proj.weight"):
        open_checkpoint(directory)
