"""Edited checkpoints: the edited tensors, everything that must not change, and folders that must not be touched."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis, project_out
from editing.writer import write_edited
from tests.disk import run_on_tiny_disk


def random_edit(alpha: float = 1.0) -> Edit:
    return Edit(orthonormal_basis(torch.randn(3, 48, generator=torch.Generator().manual_seed(2))), alpha)


def write(base: Path, out: Path, edit: Edit | None = None) -> Path:
    checkpoint = open_checkpoint(base)
    write_edited(checkpoint, plan_edit(checkpoint), edit or random_edit(), out, record={"variant": "v"}, card="card\n")
    return out


def test_edited_tensors_are_the_edit_and_all_other_bytes_are_the_bases(tiny_dir: Path, tmp_path: Path) -> None:
    out = write(tiny_dir, tmp_path / "out")
    edited = plan_edit(open_checkpoint(tiny_dir)).edited
    before, after = load_file(tiny_dir / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        expected = project_out(before[name], random_edit()) if name in edited else before[name]
        assert torch.equal(after[name], expected), name
    assert {n for n in before if not torch.equal(before[n], after[n])} == set(edited)


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


def test_transformers_opens_it_and_nothing_writes_the_direction(tiny_dir: Path, tmp_path: Path) -> None:
    out = write(tiny_dir, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    written: list[torch.Tensor] = []
    for block in model.base_model.layers:
        for module in (block.self_attn.o_proj, block.mlp.down_proj):
            module.register_forward_hook(lambda module, args, output: written.append(output.detach()))
    with torch.no_grad():
        model(torch.tensor([[1, 5, 9, 17]]))
    leak = max(float((output.double() @ random_edit().basis_HK).norm() / output.double().norm()) for output in written)
    print(f"largest share along the removed subspace: {leak:.1e}")
    assert len(written) == 6 and leak < 3e-3


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


@pytest.mark.parametrize(("check", "message"), [("early", "No room for"), ("late", "No space left on device")])
def test_a_full_disk_leaves_nothing_behind(llama_dir: Path, tmp_path: Path, check: str, message: str) -> None:
    disk = tmp_path / "disk"
    run = run_on_tiny_disk(disk, [sys.executable, "-c", FULL_DISK, str(llama_dir), str(disk), check])
    assert message in run.stdout, run.stderr
    assert "left: []" in run.stdout
