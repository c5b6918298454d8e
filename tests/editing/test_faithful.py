"""Whether a folder holds what its edit makes of the base: every kind of change is named, another machine's rounding is not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from editing.adapter import WEIGHTS_FILE, write_adapter
from editing.checkpoint import open_checkpoint
from editing.compare import unfaithful_factors, unfaithful_files, unfaithful_tensors
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from tests.tiny import save_tiny

EDITED, UNTOUCHED = "model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"
Tensors = dict[str, Tensor]


def an_edit(alpha: float = 1.0) -> Edit:
    return Edit(orthonormal_basis(torch.randn(3, 48, generator=torch.Generator().manual_seed(2))), alpha)


def changed(folder: Path, copy: Path, change: Callable[[Tensors], None], name: str = "model.safetensors") -> Path:
    """A copy of a folder with its tensors changed."""
    shutil.copytree(folder, copy)
    tensors = load_file(copy / name)
    change(tensors)
    save_file(tensors, copy / name, {"format": "pt"})
    return copy


def one_value(name: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name].view(-1)[5] = 1.0

    return change


def last_place(name: str) -> Callable[[Tensors], None]:
    """Every tenth value to its neighbour, as other arithmetic might round it."""

    def change(tensors: Tensors) -> None:
        tensors[name].view(-1).view(torch.int16)[::10] += 1

    return change


def nothing(tensors: Tensors) -> None:
    pass


def scaled(tensors: Tensors) -> None:
    tensors[EDITED] *= 1.02


def transposed(tensors: Tensors) -> None:
    tensors[UNTOUCHED] = tensors[UNTOUCHED].T.contiguous()


def removed(tensors: Tensors) -> None:
    del tensors[UNTOUCHED]


def added(tensors: Tensors) -> None:
    tensors["model.extra.weight"] = torch.ones(2)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (nothing, []),
        (last_place(EDITED), []),
        (one_value(EDITED), [EDITED]),
        (scaled, [EDITED]),
        (last_place(UNTOUCHED), [UNTOUCHED]),
        (transposed, [UNTOUCHED]),
        (removed, [UNTOUCHED]),
        (added, ["model.extra.weight"]),
    ],
)
def test_every_change_of_a_checkpoint_is_named(
    change: Callable[[Tensors], None], found: list[str], llama_dir: Path, tmp_path: Path
) -> None:
    base = open_checkpoint(llama_dir)
    plan = plan_edit(base)
    write_edited(base, plan, an_edit(), tmp_path / "out", record={}, card=lambda proofs: "")
    copy = changed(tmp_path / "out", tmp_path / "copy", change)
    assert unfaithful_tensors(open_checkpoint(copy), base, plan, an_edit()) == found
    assert unfaithful_tensors(base, base, plan, an_edit()) == sorted(tensor.name for tensor in plan.edited)


def test_what_an_edit_writes_is_faithful_in_every_family(tiny_dir: Path, tmp_path: Path) -> None:
    base = open_checkpoint(tiny_dir)
    plan = plan_edit(base)
    write_edited(base, plan, an_edit(0.5), tmp_path / "out", record={}, card=lambda proofs: "")
    assert unfaithful_tensors(open_checkpoint(tmp_path / "out"), base, plan, an_edit(0.5)) == []


def test_the_head_that_untying_adds_is_no_addition(tmp_path: Path) -> None:
    base = open_checkpoint(save_tiny("gemma", tmp_path / "gemma"))
    plan = plan_edit(base, Scope(embeddings=True, untie=True))
    write_edited(base, plan, an_edit(), tmp_path / "out", record={}, card=lambda proofs: "")
    assert unfaithful_tensors(open_checkpoint(tmp_path / "out"), base, plan, an_edit()) == []


def test_every_change_of_an_adapter_is_named(llama_dir: Path, tmp_path: Path) -> None:
    base = open_checkpoint(llama_dir)
    plan = plan_edit(base)
    write_adapter(base, plan, an_edit(), tmp_path / "out", base_model=str(llama_dir), record={}, card="")
    assert unfaithful_factors(tmp_path / "out", base, plan, an_edit()) == []
    factor = f"base_model.model.{EDITED.removesuffix('.weight')}.lora_A.weight"
    copy = changed(tmp_path / "out", tmp_path / "copy", one_value(factor), WEIGHTS_FILE)
    assert unfaithful_factors(copy, base, plan, an_edit()) == [EDITED]
    assert len(unfaithful_factors(tmp_path / "out", base, plan, an_edit(0.5))) == len(plan.edited)


def test_files_beside_the_weights_are_the_bases_but_for_cards_and_licences(sharded_dir: Path, tmp_path: Path) -> None:
    base_dir = tmp_path / "base"
    shutil.copytree(sharded_dir, base_dir)
    (base_dir / "chat_template.jinja").write_text("{{ messages }}")
    base = open_checkpoint(base_dir)
    plan = plan_edit(base)
    write_edited(base, plan, an_edit(), tmp_path / "out", record={}, card=lambda proofs: "")
    (base_dir / "LICENSE.txt").write_text("came with a later download")
    assert unfaithful_files(tmp_path / "out", base, plan) == []
    (tmp_path / "out" / "chat_template.jinja").write_text("{{ other }}")
    (tmp_path / "out" / "config.json").unlink()
    assert unfaithful_files(tmp_path / "out", base, plan) == ["chat_template.jinja", "config.json"]
