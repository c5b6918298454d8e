"""A new model family is one file of editing/families: the example of editing's README, on a tiny StarCoder2."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from editing import families
from editing.checkpoint import Checkpoint, open_checkpoint
from editing.errors import EditError
from editing.plan import EditPlan, Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from tests.tiny import BLOCKS, EDITOR_CONFIGS, HIDDEN, LLAMA_SIZES, save_tiny

EXAMPLE = '''
"""StarCoder2: Llama's attention, an MLP of two layers, and biases on every Linear and norm."""

from editing.families.base import BIAS, Family, Writer, linear_writers
from editing.families.llama import BLOCK, EMBED

O_PROJ, C_PROJ = BLOCK + "self_attn.o_proj", BLOCK + "mlp.c_proj"
READERS = [BLOCK + name for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.c_fc")]
NORMS = [BLOCK + "input_layernorm", BLOCK + "post_attention_layernorm", "model.norm"]

STARCODER2 = Family(
    label="starcoder2",
    model_types=("starcoder2",),
    writers=(
        EMBED,
        *linear_writers(O_PROJ, C_PROJ),
        Writer(O_PROJ + ".bias", BIAS, axis=-1),
        Writer(C_PROJ + ".bias", BIAS, axis=-1),
    ),
    others=tuple(f"{name}.{kind}" for name in (*READERS, *NORMS) for kind in ("weight", "bias")),
)
'''
NAME = "editing.families.starcoder2"
EVERYTHING = Scope(embeddings=True, biases=True)


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EDITOR_CONFIGS, "starcoder2", LLAMA_SIZES)
        return save_tiny("starcoder2", tmp_path_factory.mktemp("starcoder2"), dtype=torch.float32)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example beside the families that are there."""
    (tmp_path / "starcoder2.py").write_text(EXAMPLE)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    monkeypatch.setattr("editing.plan.FAMILIES", families.find_families())
    yield
    del sys.modules[NAME], families.starcoder2  # type: ignore[attr-defined]


def edit() -> Edit:
    return Edit(orthonormal_basis(torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(0))), 1.0)


def written(base_dir: Path, out: Path) -> tuple[Checkpoint, EditPlan, Checkpoint]:
    checkpoint = open_checkpoint(base_dir)
    plan = plan_edit(checkpoint, EVERYTHING)
    write_edited(checkpoint, plan, edit(), out, record={}, card=lambda proofs: "card")
    return checkpoint, plan, open_checkpoint(out)


def test_without_its_file_a_family_is_refused_by_name(base_dir: Path) -> None:
    with pytest.raises(EditError, match="Model type 'starcoder2' is not known to the editor"):
        plan_edit(open_checkpoint(base_dir))


def test_every_family_of_the_folder_is_found() -> None:
    assert families.find_families() == families.FAMILIES


def test_the_plan_edits_both_projections_of_every_block(base_dir: Path, added: None) -> None:
    edited = {(tensor.layer, tensor.role) for tensor in plan_edit(open_checkpoint(base_dir)).edited}
    assert edited == {(layer, role) for layer in range(BLOCKS) for role in ("attention", "mlp")}


def test_the_written_weights_are_the_dense_projection(base_dir: Path, tmp_path: Path, added: None) -> None:
    base, plan, out = written(base_dir, tmp_path / "out")
    basis = edit().basis_HK
    for tensor in (tensor for tensor in plan.edited if tensor.axis == 0):
        weight = base.read(tensor.name).double()
        difference = float((out.read(tensor.name).double() - (weight - basis @ (basis.T @ weight))).abs().max())
        assert difference < 1e-6, tensor.name


def test_the_residual_stream_has_no_part_along_the_directions(base_dir: Path, tmp_path: Path, added: None) -> None:
    from transformers import AutoModelForCausalLM

    written(base_dir, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.inference_mode():
        streams = model.model(torch.tensor([[1, 5, 9, 17]]), output_hidden_states=True).hidden_states[:BLOCKS]
    leaks = [float((stream.double() @ edit().basis_HK).norm() / stream.double().norm()) for stream in streams]
    print(f"largest share along the removed directions {max(leaks):.1e}")
    assert max(leaks) < 1e-5


def test_what_is_no_writer_stays_as_it_is(base_dir: Path, tmp_path: Path, added: None) -> None:
    base, plan, out = written(base_dir, tmp_path / "out")
    left = base.tensors.keys() - {tensor.name for tensor in plan.edited}
    assert all(torch.equal(base.read(name), out.read(name)) for name in left)
