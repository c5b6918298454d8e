"""Which files hold the weights, and what is tied: the editor's answers against transformers' own loading of the same folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import left_out, write_edited
from tests.tiny import HIDDEN, save_tiny

O_PROJ = "model.layers.0.self_attn.o_proj.weight"
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return save_tiny("llama", tmp_path / "single", dtype=torch.float32)


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return save_tiny("gemma", tmp_path / "tied", dtype=torch.float32)


def as_loaded(folder: Path, name: str) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()[name]


def set_key(folder: Path, key: str, value: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))


def add_head(folder: Path, factor: float) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, HEAD: weights[EMBED] * factor}, folder / "model.safetensors", {"format": "pt"})


def test_a_stale_index_beside_model_safetensors_is_refused(tmp_path: Path, single: Path) -> None:
    sharded = save_tiny("llama", tmp_path / "sharded", max_shard_size="40KB")
    (sharded / "model.safetensors").write_bytes((single / "model.safetensors").read_bytes())
    with pytest.raises(EditError, match=r"holds model.safetensors and model.safetensors.index.json"):
        open_checkpoint(sharded)


def test_an_index_of_one_file_is_that_file(single: Path) -> None:
    names = load_file(single / "model.safetensors").keys()
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    (single / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [file.name for file in open_checkpoint(single).files] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["model_old.safetensors", "consolidated.safetensors", "adapter_model.safetensors"])
def test_another_file_beside_the_weights_is_left_aside(single: Path, name: str) -> None:
    save_file({O_PROJ: torch.zeros(HIDDEN, 64)}, single / name)
    checkpoint = open_checkpoint(single)
    assert [file.name for file in checkpoint.left] == [name]
    assert torch.equal(checkpoint.read(O_PROJ), as_loaded(single, O_PROJ))


def test_a_macos_twin_of_the_weights_is_not_read(single: Path) -> None:
    (single / "._model.safetensors").write_bytes(b"no weights")
    assert open_checkpoint(single).left == ()


def test_weights_that_no_loader_finds_are_refused(single: Path) -> None:
    (single / "model.safetensors").rename(single / "pytorch.safetensors")
    with pytest.raises(EditError, match=r"pytorch.safetensors, and neither model.safetensors nor"):
        open_checkpoint(single)


def test_subfolders_are_carried_and_copies_of_the_weights_are_not(single: Path, tmp_path: Path) -> None:
    (single / "additional_chat_templates").mkdir()
    (single / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    (single / "original").mkdir()
    (single / "original" / "consolidated.00.pth").write_bytes(b"pickled")
    checkpoint = open_checkpoint(single)
    edit = Edit(orthonormal_basis(torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(0))), 1.0)
    write_edited(checkpoint, plan_edit(checkpoint), edit, tmp_path / "out", record={}, card=lambda proofs: "card")
    assert (tmp_path / "out" / "additional_chat_templates" / "tool_use.jinja").read_text() == "{{ messages }}"
    assert not (tmp_path / "out" / "original").exists()
    assert left_out(checkpoint) == ["original/consolidated.00.pth"]


def test_a_spare_copy_of_the_embedding_is_edited_with_it(tied: Path, tmp_path: Path) -> None:
    """transformers ties while both are equal, so both stay equal."""
    add_head(tied, 1.0)
    checkpoint = open_checkpoint(tied)
    edit = Edit(orthonormal_basis(torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(0))), 1.0)
    plan = plan_edit(checkpoint, Scope(embeddings=True))
    write_edited(checkpoint, plan, edit, tmp_path / "out", record={}, card=lambda proofs: "card")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert plan.edits_head
    assert torch.equal(written[HEAD], written[EMBED])
    assert not torch.equal(written[HEAD], checkpoint.read(HEAD))


def test_untying_keeps_a_spare_copy_as_the_head(tied: Path, tmp_path: Path) -> None:
    add_head(tied, 1.0)
    checkpoint = open_checkpoint(tied)
    edit = Edit(orthonormal_basis(torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(0))), 1.0)
    plan = plan_edit(checkpoint, Scope(embeddings=True, untie=True))
    write_edited(checkpoint, plan, edit, tmp_path / "out", record={}, card=lambda proofs: "card")
    assert torch.equal(as_loaded(tmp_path / "out", HEAD), checkpoint.read(HEAD))
    assert not torch.equal(as_loaded(tmp_path / "out", EMBED), checkpoint.read(EMBED))


def test_a_tied_configuration_with_another_head_is_refused(tied: Path) -> None:
    add_head(tied, 2.0)
    set_key(tied, "tie_word_embeddings", True)
    with pytest.raises(EditError, match=r"lm_head.weight differs from model.embed_tokens.weight"):
        plan_edit(open_checkpoint(tied))


def test_a_head_that_only_the_types_default_would_tie_is_its_own(tied: Path) -> None:
    add_head(tied, 2.0)
    config = json.loads((tied / "config.json").read_text())
    del config["tie_word_embeddings"]
    (tied / "config.json").write_text(json.dumps(config))
    assert not plan_edit(open_checkpoint(tied)).ties_head
    assert torch.equal(as_loaded(tied, HEAD), open_checkpoint(tied).read(HEAD))


def test_a_missing_head_of_an_untied_model_is_refused(tied: Path) -> None:
    set_key(tied, "tie_word_embeddings", False)
    with pytest.raises(EditError, match=r"tie_word_embeddings = false, and there is no lm_head.weight"):
        plan_edit(open_checkpoint(tied))


@pytest.mark.parametrize("config", [{"model_type": "mpt", "n_layers": 3}, {"model_type": "dbrx"}])
def test_an_unknown_type_is_named_before_its_shape(single: Path, config: dict[str, Any]) -> None:
    (single / "config.json").write_text(json.dumps(config))
    with pytest.raises(EditError, match=rf"Model type '{config['model_type']}' is not known"):
        open_checkpoint(single)
