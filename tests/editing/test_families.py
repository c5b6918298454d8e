"""Saved equals ablated, for every family: the folded checkpoint against the base under hooks that project every write.

The hooks stand on the modules that write to the residual stream, listed here by name, and project with a matrix of
`tests.dense`: nothing of `editing` makes the reference.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from editing import families
from editing.checkpoint import Checkpoint, open_checkpoint
from editing.plan import PROJECTIONS, EditPlan, Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from tests.dense import projector
from tests.tiny import BLOCKS, EDITOR_CONFIGS, HIDDEN, save_tiny

INPUT = torch.tensor([[1, 5, 9, 17, 33, 80, 4]])
EVERYTHING = Scope(embeddings=True, biases=True)
TIED = {"gemma", "gemma2", "gemma3_text", "gpt2"}
NORM_BEHIND = {"gemma2", "gemma3_text", "olmo2"}
EMBEDDINGS = ("embed_tokens", "wte", "wpe", "embed_in")
NORMS_BEHIND = ("post_attention_layernorm", "post_feedforward_layernorm")
PROJECTIONS_OUT = (
    *("self_attn.o_proj", "attn.c_proj", "attention.dense"),
    *("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.experts", "mlp.shared_expert.down_proj"),
)


@pytest.fixture(scope="module", params=sorted(EDITOR_CONFIGS))
def base_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint of each family, so that what is compared is the formula and not bf16's rounding."""
    return save_tiny(request.param, tmp_path_factory.mktemp("family"), dtype=torch.float32)


def directions(k: int = 2) -> Tensor:
    return torch.randn(k, HIDDEN, generator=torch.Generator().manual_seed(k))


def edit(k: int = 2) -> Edit:
    return Edit(orthonormal_basis(directions(k)), 1.0)


def folded(base_dir: Path, out: Path, scope: Scope) -> tuple[Checkpoint, EditPlan, nn.Module]:
    checkpoint = open_checkpoint(base_dir)
    plan = plan_edit(checkpoint, scope)
    write_edited(checkpoint, plan, edit(), out, record={}, card=lambda proofs: "card")
    return checkpoint, plan, load(out)


def load(directory: Path) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


def stream_writers(model: nn.Module, scope: Scope) -> list[nn.Module]:
    """The modules whose outputs are added to the residual stream: behind a norm, the norm."""
    ends = NORMS_BEHIND if model.config.model_type in NORM_BEHIND else PROJECTIONS_OUT
    ends = (*ends, *EMBEDDINGS) if scope.embeddings else ends
    return [module for name, module in model.named_modules() if name.endswith(ends)]


def projecting(module: nn.Module, scope: Scope) -> Callable[..., Any]:
    """A hook that takes the directions out of a module's output, but not out of an output bias that the edit leaves."""
    bias = getattr(module, "bias", None)
    left = 0.0 if scope.biases or bias is None else bias.detach()
    removed = projector(directions()).float()

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        first, *rest = output if isinstance(output, tuple) else (output,)
        kept = first - (first - left) @ removed
        return (kept, *rest) if isinstance(output, tuple) else kept

    return hook


def ablated_logits(base_dir: Path, scope: Scope) -> Tensor:
    """Logits of the base with the directions taken out of everything that is written."""
    model = load(base_dir)
    for module in stream_writers(model, scope):
        module.register_forward_hook(projecting(module, scope))
    if scope.embeddings and model.config.tie_word_embeddings:  # the head is the embedding: it reads with the edited matrix
        removed = projector(directions()).float()
        model.get_output_embeddings().register_forward_pre_hook(lambda module, args: (args[0] - args[0] @ removed,))
    with torch.no_grad():
        return model(INPUT).logits


@pytest.mark.parametrize("scope", [EVERYTHING, Scope()], ids=["everything", "o_proj+down_proj"])
def test_saved_equals_ablated(base_dir: Path, tmp_path: Path, scope: Scope) -> None:
    if scope == Scope() and open_checkpoint(base_dir).model_type == "gpt_oss":
        scope = Scope(biases=True)  # its experts' biases are weighted by the router, so no hook can tell them from the rest
    checkpoint, _, model = folded(base_dir, tmp_path / "out", scope)
    expected = ablated_logits(base_dir, scope)
    with torch.no_grad():
        found = model(INPUT).logits
        effect = float((expected - load(base_dir)(INPUT).logits).norm())
    difference = float((found - expected).norm()) / effect
    print(f"{checkpoint.model_type}: distance of the logits over the edit's effect {difference:.1e}")
    # Behind a norm what is written has the ablated write's direction but the rms of the edited projection.
    assert difference < (0.25 if checkpoint.model_type in NORM_BEHIND else 2e-5)


def test_nothing_writes_the_directions_after_an_edit_of_everything(base_dir: Path, tmp_path: Path) -> None:
    """The residual stream itself, behind every norm: from the embedding to the last block it has no part along Q."""
    _, _, model = folded(base_dir, tmp_path / "out", EVERYTHING)
    streams: list[Tensor] = []
    body = model.base_model
    for block in getattr(body, "layers", None) or body.h:
        block.register_forward_hook(lambda m, args, output: streams.append(output[0] if isinstance(output, tuple) else output))
    with torch.no_grad():
        model(INPUT)
    leaks = [float((stream.double() @ projector(directions())).norm() / stream.double().norm()) for stream in streams]
    print(f"{model.config.model_type}: largest share along the removed directions {max(leaks):.1e}")
    assert len(leaks) == BLOCKS
    assert max(leaks) < 1e-5


def test_the_plan_names_every_writer_and_why_some_are_left(base_dir: Path) -> None:
    checkpoint = open_checkpoint(base_dir)
    plan = plan_edit(checkpoint)
    assert {tensor.role for tensor in plan.edited} == PROJECTIONS
    assert {tensor.layer for tensor in plan.edited} == set(range(BLOCKS))
    assert all(tensor.reason.startswith("not in the scope; add --") for tensor in plan.writers if tensor.role not in PROJECTIONS)
    assert plan.ties_head == (checkpoint.model_type in TIED)
    writers = {tensor.name for tensor in plan_edit(checkpoint, EVERYTHING).edited}
    assert writers == {tensor.name for tensor in plan.writers}


def test_layers_and_alphas_reach_their_blocks_alone(base_dir: Path) -> None:
    checkpoint = open_checkpoint(base_dir)
    plan = plan_edit(checkpoint, Scope(layers=frozenset({1}), alpha_by_layer={1: 0.5}))
    assert {tensor.layer for tensor in plan.edited} == {1}
    assert {tensor.alpha for tensor in plan.edited} == {0.5}
    left = [tensor for tensor in plan.writers if tensor.role in PROJECTIONS and tensor.layer != 1]
    assert left
    assert all(tensor.reason == "its block is not in --layers-edited" for tensor in left)


def test_families_import_nothing_else_of_editing() -> None:
    folder = Path(families.__file__).parent
    trees = [ast.parse(file.read_text()) for file in folder.glob("*.py")]
    imported = {node.module or "" for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert sorted(name for name in imported if name.startswith("editing") and not name.startswith("editing.families")) == []
