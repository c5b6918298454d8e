"""Edited checkpoints: the edited tensors, everything that must not change, and folders that must not be touched."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from editing.apply import edited_tensor
from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.plan import PlannedTensor, Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from tests import dense
from tests.disk import run_on_tiny_disk
from tests.tiny import save_tiny

DIRECTIONS = torch.randn(3, 48, generator=torch.Generator().manual_seed(2))


def random_edit(alpha: float = 1.0) -> Edit:
    return Edit(orthonormal_basis(DIRECTIONS), alpha)


def write(base: Path, out: Path, edit: Edit | None = None) -> Path:
    checkpoint = open_checkpoint(base)
    write_edited(
        checkpoint, plan_edit(checkpoint), edit or random_edit(), out, record={"variant": "v"}, card=lambda proofs: "card\n"
    )
    return out


def test_edited_tensors_are_the_edit_and_all_other_bytes_are_the_bases(tiny_dir: Path, tmp_path: Path) -> None:
    out = write(tiny_dir, tmp_path / "out")
    checkpoint = open_checkpoint(tiny_dir)
    edited = {tensor.name: tensor for tensor in plan_edit(checkpoint).edited}
    before, after = load_file(tiny_dir / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        if name in edited:
            expected = dense.edited(checkpoint.model_type, name, before, DIRECTIONS)
            assert dense.last_places(after[name], expected) < 1e-3, name
        else:
            assert torch.equal(after[name], before[name]), name
    assert {n for n in before if not torch.equal(before[n], after[n])} == set(edited)
    report = json.loads((out / "edit_report.json").read_text())
    assert [proof["tensor"] for proof in report] == list(edited)
    assert all(proof["residual"] < 0.01 for proof in report)


def test_shards_index_and_configs_keep_their_layout(sharded_dir: Path, tmp_path: Path) -> None:
    (sharded_dir / "README.md").write_text("the base's own card\n")
    out = write(sharded_dir, tmp_path / "out")
    assert (out / "BASE_README.md").read_text() == "the base's own card\n"
    assert (out / "README.md").read_text() == "card\n"
    assert json.loads((out / "edit.json").read_text()) == {"variant": "v"}
    for file in sharded_dir.iterdir():
        if file.suffix == ".json":
            assert (out / file.name).read_bytes() == file.read_bytes()
    old, new = open_checkpoint(sharded_dir), open_checkpoint(out)
    assert {n: (e.file.name, e.begin, e.end) for n, e in old.tensors.items()} == {
        n: (e.file.name, e.begin, e.end) for n, e in new.tensors.items()
    }


def test_a_tensor_that_still_writes_the_direction_fails_the_edit_and_leaves_nothing(llama_dir: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(llama_dir)
    plan = plan_edit(checkpoint)

    def forgets_one(tensor: PlannedTensor, scratch: torch.Tensor) -> torch.Tensor:
        weight = checkpoint.read(tensor.name)
        return weight if tensor.layer == 1 else edited_tensor(checkpoint, tensor, random_edit())

    with pytest.raises(EditError, match=r"model.layers.1.*after the edit .* is 1.0000; expected 0.0000"):
        write_edited(checkpoint, plan, random_edit(), tmp_path / "out", record={}, card=lambda proofs: "", make=forgets_one)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_partial_edits_and_reflections_are_proven_too(llama_dir: Path, tmp_path: Path, alpha: float) -> None:
    out = write(llama_dir, tmp_path / "out", random_edit(alpha))
    report = json.loads((out / "edit_report.json").read_text())
    assert all(abs(proof["residual"] - abs(1 - alpha)) < 0.01 for proof in report)


def test_untying_keeps_the_head_and_edits_the_embedding(tmp_path: Path) -> None:
    base = save_tiny("gemma", tmp_path / "base", dtype=torch.float32)
    checkpoint = open_checkpoint(base)
    plan = plan_edit(checkpoint, Scope(embeddings=True, untie=True))
    write_edited(checkpoint, plan, random_edit(), tmp_path / "out", record={}, card=lambda proofs: "")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    old = AutoModelForCausalLM.from_pretrained(base)
    assert torch.equal(model.lm_head.weight, old.lm_head.weight)
    leak = model.get_input_embeddings().weight.detach().double() @ dense.projector(DIRECTIONS)
    assert float(leak.norm() / model.get_input_embeddings().weight.detach().double().norm()) < 1e-6
    with pytest.raises(EditError, match="--untie has nothing to do: the embeddings are not edited"):
        plan_edit(checkpoint, Scope(untie=True))


def test_pickles_are_not_carried_along_and_links_are_followed_for_reading_only(llama_dir: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in llama_dir.iterdir():
        (base / file.name).symlink_to(file)
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    before = (llama_dir / "model.safetensors").read_bytes()
    out = write(base, tmp_path / "out")
    assert not (out / "pytorch_model.bin").exists()
    assert not any(file.is_symlink() for file in out.iterdir())
    assert (llama_dir / "model.safetensors").read_bytes() == before


def test_folders_that_are_not_free_are_left_alone(llama_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    with pytest.raises(EditError, match="exists already \\(not one of ours\\)"):
        write(llama_dir, tmp_path / "theirs")
    with pytest.raises(EditError, match="lies inside the base checkpoint"):
        write(llama_dir, llama_dir / "out")
    with pytest.raises(EditError, match="hidden size"):
        write(llama_dir, tmp_path / "out", Edit(torch.eye(5, dtype=torch.float64)[:, :1], 1.0))
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    assert not any(path.is_dir() for path in llama_dir.iterdir())


FULL_DISK = """
import sys, pathlib
from tests.editing.test_writer import write
from editing import checkpoint, writer
from editing.errors import EditError
base, disk, check = map(str, sys.argv[1:])
if check == "late":  # the space is there when looked at, and gone while writing
    writer.free_bytes = lambda directory: 1 << 40
try:
    write(pathlib.Path(base), pathlib.Path(disk) / "out")
except EditError as error:
    print(error)
    print("left:", sorted(path.name for path in pathlib.Path(disk).iterdir()))
"""


@pytest.mark.parametrize(
    ("check", "message"), [("early", "No room for"), pytest.param("late", "No space left on device", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(llama_dir: Path, tmp_path: Path, check: str, message: str) -> None:
    disk = tmp_path / "disk"
    run = run_on_tiny_disk(disk, [sys.executable, "-c", FULL_DISK, str(llama_dir), str(disk), check])
    assert message in run.stdout, run.stderr
    assert "left: []" in run.stdout
