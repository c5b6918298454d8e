"""How often `bin/audit` is right: random edits of random models of several families, untouched models and fine-tuned ones."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from editing.audit import audit
from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.environment import describe
from judging.statistics import share

HIDDEN, BLOCKS = 96, 6
COMMON = {"vocab_size": 64, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = {"hidden_size": HIDDEN, "intermediate_size": 256, "num_hidden_layers": BLOCKS, "num_attention_heads": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**LLAMA, "num_key_value_heads": 2, "head_dim": 24},
    "qwen3": {**LLAMA, "num_key_value_heads": 2, "head_dim": 32},
    "gemma2": {**LLAMA, "num_key_value_heads": 2, "head_dim": 24},
    "gpt_neox": LLAMA,
    "mixtral": {**LLAMA, "num_key_value_heads": 2, "head_dim": 24, "num_local_experts": 4, "num_experts_per_tok": 2},
}
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Case:
    """A kind of model: `alpha` None means no edit; `blocks` how many blocks are edited, None for all."""

    label: str
    rank: int = 0
    alpha: float | None = None
    blocks: int | None = None
    tuned: str = ""


CASES = (
    Case("untouched"),
    Case("fine-tuned: Adam, 20 steps", tuned="adam"),
    Case("fine-tuned: merged LoRA of rank 8", tuned="lora"),
    *(Case(f"alpha 1, rank {rank}", rank, 1.0) for rank in (1, 2, 5, 16)),
    *(Case(f"alpha {alpha}, rank 1", 1, alpha) for alpha in (0.95, 0.9, 0.8, 0.7, 0.5, 0.2)),
    Case("alpha 1, rank 1, half of the blocks", 1, 1.0, BLOCKS // 2),
    Case("alpha 1, rank 3, one block", 3, 1.0, 1),
    Case("reflection (alpha 2), rank 1", 1, 2.0),
)


def bench_audit(per_case: int) -> dict[str, Any]:
    """`per_case` random models of every kind, audited without and with their base.

    Right means: as many directions as were removed, each recovered to a cosine above 0.99; for a model nothing was removed
    from, none found.
    """
    rows = []
    for place, case in enumerate(CASES):
        right = {"alone": 0, "with_base": 0}
        for number in range(per_case):
            for way, is_right in _trial(case, seed=1000 * place + number).items():
                right[way] += is_right
        intervals = {way: vars(share(count, per_case)) for way, count in right.items()}
        rows.append({"case": case.label, "n": per_case, **right, "intervals": intervals})
    return {"cases": rows, "total": per_case * len(CASES), "families": list(CONFIGS), **describe()}


def _trial(case: Case, seed: int) -> dict[str, bool]:
    torch.manual_seed(seed)
    family = list(CONFIGS)[seed % len(CONFIGS)]
    dtype = DTYPES[seed // len(CONFIGS) % len(DTYPES)]
    model = _random_model(family)
    with tempfile.TemporaryDirectory() as folder:
        base, changed = Path(folder) / "base", Path(folder) / "changed"
        model.to(dtype).save_pretrained(base)
        basis_HK = _change(case, model, base, changed)
        target = changed if changed.exists() else base
        checkpoint = open_checkpoint(target)
        found = {"alone": audit(checkpoint), "with_base": audit(checkpoint, open_checkpoint(base))}
        return {way: _is_right(finding.directions_HK, basis_HK) for way, finding in found.items()}


def _random_model(family: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **COMMON, **CONFIGS[family]), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # gains as uneven as a trained model's
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def _change(case: Case, model: Any, base: Path, out: Path) -> Tensor:
    """Make the changed checkpoint of a case at `out`; returns what was removed, (H, rank)."""
    if case.tuned:
        tune: dict[str, Callable[[nn.Module], None]] = {"adam": _train, "lora": _merge_random_lora}
        dtype = next(model.parameters()).dtype
        tune[case.tuned](model.float())
        model.to(dtype).save_pretrained(out)
    if case.alpha is None:
        return torch.zeros(HIDDEN, 0, dtype=torch.float64)
    checkpoint = open_checkpoint(base)
    blocks = None if case.blocks is None else frozenset(torch.randperm(BLOCKS)[: case.blocks].tolist())
    edit = Edit(orthonormal_basis(torch.randn(case.rank, HIDDEN)), case.alpha)
    write_edited(checkpoint, plan_edit(checkpoint, Scope(layers=blocks)), edit, out, record={}, card=lambda proofs: "")
    return edit.basis_HK


def _train(model: nn.Module) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(20):
        tokens = torch.randint(3, COMMON["vocab_size"], (4, 16))
        model(tokens, labels=tokens).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def _merge_random_lora(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                height, width = parameter.shape
                update = torch.randn(height, 8) @ torch.randn(8, width)
                parameter.add_(update, alpha=0.1 * float(parameter.norm() / update.norm()))


def _is_right(found_HK: Tensor, removed_HK: Tensor) -> bool:
    if found_HK.shape[1] != removed_HK.shape[1]:
        return False
    return removed_HK.shape[1] == 0 or float(torch.linalg.svdvals(removed_HK.T @ found_HK).min()) > 0.99
