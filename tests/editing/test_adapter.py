"""The adapter form: PEFT loads it, it computes the edit, and merging it gives the folded checkpoint to rounding."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from editing.adapter import merge_factors, read_adapter, write_adapter
from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from tests import dense
from tests.tiny import save_tiny

TOKENS = torch.tensor([[1, 5, 9, 17, 33]])


def directions(k: int = 2) -> torch.Tensor:
    return torch.randn(k, 48, generator=torch.Generator().manual_seed(k))


def random_edit(k: int = 2, alpha: float = 1.0, keep_norms: bool = False) -> Edit:
    return Edit(orthonormal_basis(directions(k)), alpha, keep_norms)


def adapter(base: Path, out: Path, edit: Edit, scope: Scope | None = None) -> Path:
    checkpoint = open_checkpoint(base)
    write_adapter(checkpoint, plan_edit(checkpoint, scope), edit, out, base_model="base", record={"variant": "v"}, card="card")
    return out


@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2", "gpt_neox"])
@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_peft_loads_it_and_it_computes_the_edit(tmp_path: Path, family: str, alpha: float) -> None:
    base = save_tiny(family, tmp_path / "base", dtype=torch.float32)
    out = adapter(base, tmp_path / "adapter", random_edit(alpha=alpha))
    checkpoint = open_checkpoint(base)
    folded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    weights = load_file(base / "model.safetensors")
    for tensor in plan_edit(checkpoint).edited:
        expected = dense.edited(family, tensor.name, weights, directions(), alpha)
        folded.get_parameter(tensor.name).data.copy_(expected)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), out)
    with torch.no_grad():
        difference = float((folded(TOKENS).logits - adapted(TOKENS).logits).abs().max())
    print(f"{family}: largest difference of the logits {difference:.1e}")
    assert difference < 1e-4
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 2


def test_merging_gives_the_folded_weights_to_rounding(llama_dir: Path, tmp_path: Path) -> None:
    factors = read_adapter(adapter(llama_dir, tmp_path / "adapter", random_edit()))
    weights = load_file(llama_dir / "model.safetensors")
    for tensor in plan_edit(open_checkpoint(llama_dir)).edited:
        merged = merge_factors(weights[tensor.name], *factors[tensor.name]).double()
        folded = dense.without(weights[tensor.name], directions())
        assert float((merged - folded).norm() / folded.norm()) < 2e-3


def test_a_scope_reaches_the_adapter(llama_dir: Path, tmp_path: Path) -> None:
    factors = read_adapter(adapter(llama_dir, tmp_path / "adapter", random_edit(), Scope(layers=frozenset({2}))))
    assert sorted(factors) == ["model.layers.2.mlp.down_proj.weight", "model.layers.2.self_attn.o_proj.weight"]


@pytest.mark.parametrize(
    ("family", "edit", "scope", "message"),
    [
        ("llama", random_edit(), Scope(embeddings=True), "embed_tokens.weight .* has no adapter form"),
        ("gpt2", random_edit(), Scope(), "c_proj.weight .* has no adapter form"),
        ("gpt_oss", random_edit(), Scope(), "experts.down_proj .* has no adapter form"),
        ("llama", random_edit(keep_norms=True), Scope(), "keeps norms is not of rank k"),
    ],
)
def test_what_a_lora_cannot_express_is_refused(tmp_path: Path, family: str, edit: Edit, scope: Scope, message: str) -> None:
    base = save_tiny(family, tmp_path / "base")
    with pytest.raises(EditError, match=message):
        adapter(base, tmp_path / "adapter", edit, scope)
    assert not (tmp_path / "adapter").exists()


def test_a_folder_that_is_no_adapter_is_named(llama_dir: Path) -> None:
    with pytest.raises(EditError, match="is no adapter folder: it has no adapter_config"):
        read_adapter(llama_dir)
