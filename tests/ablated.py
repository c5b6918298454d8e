"""Logits and streams of a model under hooks that project everything that is written: the reference of the family tests.

The hooks stand on the modules that write to the residual stream, listed here by name, and project with a matrix of
`tests.dense`: nothing of `editing` makes the reference. `folded` makes what is compared with it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from editing.checkpoint import Checkpoint, open_checkpoint
from editing.plan import EditPlan, Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from tests.dense import projector
from tests.tiny import HIDDEN

INPUT = torch.tensor([[1, 5, 9, 17, 33, 80, 4]])
EVERYTHING = Scope(embeddings=True, biases=True)
NORM_BEHIND = {"gemma2", "gemma3_text", "olmo2", "olmo3", "exaone4", "glm4", "gemma4_text"}
EMBEDDINGS = ("embed_tokens", "wte", "wpe", "embed_in")
NORMS_BEHIND = ("post_attention_layernorm", "post_feedforward_layernorm", "post_per_layer_input_norm")
NORMS_BEHIND_GLM4 = ("post_self_attn_layernorm", "post_mlp_layernorm")
PROJECTIONS_OUT = (
    *("self_attn.o_proj", "attn.c_proj", "attention.dense"),
    *("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.experts", "mlp.shared_expert.down_proj"),
    *("mlp.shared_experts.down_proj", "block_sparse_moe", "shared_mlp", "mamba", "linear_attn", "self_attn.out_proj"),
    *("conv.out_proj", "feed_forward.down_proj", "feed_forward.shared_expert.down_proj", "feed_forward.experts"),
    "feed_forward.w2",
)


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
    family = model.config.model_type
    ends = NORMS_BEHIND if family in NORM_BEHIND else PROJECTIONS_OUT
    ends = NORMS_BEHIND_GLM4 if family == "glm4" else ends
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


def distance_over_effect(base_dir: Path, out: Path, scope: Scope) -> float:
    """How far the folded checkpoint's logits are from the ablated base's, over the ablation's own effect."""
    _, _, model = folded(base_dir, out, scope)
    expected = ablated_logits(base_dir, scope)
    with torch.no_grad():
        effect = float((expected - load(base_dir)(INPUT).logits).norm())
        return float((model(INPUT).logits - expected).norm()) / effect
