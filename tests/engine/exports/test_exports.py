"""A run and its directions in other tools' forms, read back by readers that are not ours where there are any."""

import csv
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import EngineError
from engine.exports import steering
from engine.exports.write import export
from extraction.files import load_directions
from tests.small_run import make_inputs, rollout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in `run`, with its model in `model`."""
    folder = tmp_path_factory.mktemp("exported")
    make_inputs(folder)
    rollout(folder, folder / "run")
    return folder


@pytest.fixture(scope="module")
def log(work: Path) -> zipfile.ZipFile:
    export(work / "run", "inspect", work / "logs")
    return zipfile.ZipFile(work / "logs" / "base.eval")


def test_there_is_a_log_for_each_variant(work: Path, log: zipfile.ZipFile) -> None:
    assert sorted(file.name for file in (work / "logs").iterdir()) == ["base.eval", "smollm2_135m_k1.eval"]


def test_a_log_has_a_member_for_each_response(log: zipfile.ZipFile) -> None:
    assert len([name for name in log.namelist() if name.startswith("samples/")]) == 16


def test_a_log_counts_its_samples(log: zipfile.ZipFile) -> None:
    assert json.loads(log.read("header.json"))["results"]["completed_samples"] == 16


def test_a_sample_carries_the_judges_grades(log: zipfile.ZipFile) -> None:
    sample = json.loads(log.read("samples/declined-00000_epoch_1.json"))
    assert set(sample["scores"]["offline"]["value"]) == {"compliance", "coherence", "declined"}


def test_the_means_are_those_of_the_samples(log: zipfile.ZipFile) -> None:
    samples = [json.loads(log.read(name)) for name in log.namelist() if name.startswith("samples/")]
    values = [sample["scores"]["offline"]["value"]["declined"] for sample in samples]
    scores = {score["name"]: score for score in json.loads(log.read("header.json"))["results"]["scores"]}
    assert scores["declined"]["metrics"]["mean"]["value"] == pytest.approx(sum(values) / len(values))


def test_equal_runs_give_equal_logs(work: Path, log: zipfile.ZipFile, tmp_path: Path) -> None:
    export(work / "run", "inspect", tmp_path / "again")
    assert (tmp_path / "again" / "base.eval").read_bytes() == (work / "logs" / "base.eval").read_bytes()


def test_a_dataset_folder_is_what_datasets_loads(work: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    export(work / "run", "dataset", tmp_path / "set")
    loaded = load_dataset(str(tmp_path / "set"), "rollouts", split="train", cache_dir=str(tmp_path / "cache"))
    assert [len(loaded), loaded[0]["prompt"]] == [32, "See my key 0?"]


def test_csv_has_a_row_for_each_score(work: Path, tmp_path: Path) -> None:
    export(work / "run", "csv", tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [len(rows), rows[0]["judge"], rows[0]["variant"]] == [32, "offline", "base"]


@pytest.mark.parametrize("numbering", ["resid_pre", "block_output"])
def test_layers_come_back_from_a_layer_keyed_file(work: Path, tmp_path: Path, numbering: str) -> None:
    ours = load_directions(work / "run" / "directions.safetensors").direction_LH
    export(work / "run", "layers", tmp_path / "layers.safetensors", numbering=numbering)
    found = steering.read_layers(tmp_path / "layers.safetensors").direction_LH
    first = 0 if numbering == "resid_pre" else 1  # no block puts out layer 0
    assert torch.equal(found[first:], ours[first:].float().double())


def test_a_block_output_is_the_layer_before(work: Path, tmp_path: Path) -> None:
    ours = load_directions(work / "run" / "directions.safetensors").direction_LH
    export(work / "run", "layers", tmp_path / "layers.safetensors", key="blocks.{layer}.vector", numbering="block_output")
    assert torch.equal(load_file(tmp_path / "layers.safetensors")["blocks.1.vector"], ours[2].float())


def test_a_control_vector_is_read_by_the_gguf_package(work: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    export(work / "run", "gguf", tmp_path / "vector.gguf", like=str(work / "model"))
    reader = gguf.GGUFReader(tmp_path / "vector.gguf")
    ours = load_directions(work / "run" / "directions.safetensors").direction_LH
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert [tensor.name for tensor in reader.tensors] == ["direction.1"]
    assert torch.equal(torch.from_numpy(reader.tensors[0].data.copy()), ours[2].float())


def test_a_control_vector_becomes_a_file_of_ours(work: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    ours = load_directions(work / "run" / "directions.safetensors").direction_LH
    export(work / "run", "gguf", tmp_path / "vector.gguf", like=str(work / "model"))
    export(tmp_path / "vector.gguf", "directions", tmp_path / "back.safetensors", like=str(work / "model"))
    assert torch.equal(load_directions(tmp_path / "back.safetensors").direction_LH[2], ours[2].float().double())


def test_another_tools_file_has_to_be_told_its_numbering(tmp_path: Path) -> None:
    save_file({"layer_3": torch.ones(8)}, tmp_path / "theirs.safetensors")
    with pytest.raises(EngineError, match="does not say how it numbers layers"):
        export(tmp_path / "theirs.safetensors", "directions", tmp_path / "out.safetensors")


def test_another_tools_file_is_read(tmp_path: Path) -> None:
    save_file({f"layer_{layer}": torch.full((8,), float(layer + 1)) for layer in range(3)}, tmp_path / "theirs.safetensors")
    export(tmp_path / "theirs.safetensors", "directions", tmp_path / "out.safetensors", numbering="block_output")
    assert load_directions(tmp_path / "out.safetensors").direction_LH[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("parquet", {}, "--to takes one of inspect, dataset, csv"),
        ("layers", {"numbering": "embeddings"}, "--numbering takes resid_pre or block_output"),
        ("layers", {"key": "layer"}, "--key takes one {layer}"),
        ("gguf", {}, "add --like MODEL"),
    ],
)
def test_a_bad_option_writes_nothing(work: Path, tmp_path: Path, form: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        export(work / "run", form, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_broken_gguf_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00 and no more")
    with pytest.raises(EngineError, match=r"broken\.gguf is not a readable GGUF file"):
        steering.read_gguf(tmp_path / "broken.gguf")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is not a run directory"):
        export(tmp_path, "csv", tmp_path / "out.csv")
