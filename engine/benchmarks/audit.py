"""How often `bin/audit` is right: random edits of random models, and false alarms on models that nobody edited."""
# H = hidden size, K = directions

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editing.audit import audit
from editing.checkpoint import open_checkpoint
from editing.finding import Finding, kind_of
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.benchmarks.audit_models import (
    BLOCKS,
    CONFIGS,
    DTYPES,
    HIDDEN,
    SORTS,
    Sort,
    add_noise,
    random_model,
    scale_channels,
)
from engine.environment import describe
from judging.statistics import share

WAYS = ("alone", "with_base")


@dataclass(frozen=True)
class Case:
    """A kind of edit: of how many blocks (None for all), each with directions of its own or not, and what came before or after.

    noise: every writer's weights moved by this many standard deviations after the edit.
    small_channel: one channel of the base at 10 %.
    """

    label: str
    rank: int
    alpha: float
    blocks: int | None = None
    own: bool = False
    noise: float = 0.0
    small_channel: bool = False


CASES = (
    *(Case(f"alpha 1, rank {rank}", rank, 1.0) for rank in (1, 2, 5, 16)),
    *(Case(f"alpha {alpha}, rank 1", 1, alpha) for alpha in (0.95, 0.9, 0.8, 0.7, 0.5, 0.2)),
    Case("alpha 1, rank 1, half of the blocks", 1, 1.0, BLOCKS // 2),
    Case("alpha 1, rank 3, one block", 3, 1.0, 1),
    Case("alpha 1, each block its own direction", 1, 1.0, own=True),
    Case("alpha 1, rank 1, then 0.2 sd of noise", 1, 1.0, noise=0.2),
    Case("alpha 1, rank 1, a channel at 10 %", 1, 1.0, small_channel=True),
    Case("reflection (alpha 2), rank 1", 1, 2.0),
    Case("amplified (alpha -0.5), rank 1", 1, -0.5),
)


def bench_audit(per_case: int, untouched: int) -> dict[str, Any]:
    """`per_case` random models of every edit, and `untouched` models that nobody edited, audited without and with their base.

    Right means: the edit's word, as many directions as it has, each recovered to a cosine above 0.99. A false alarm is any
    direction found in a model that nobody edited.
    """
    edits = []
    for place, case in enumerate(CASES):
        right = [_edited(case, seed=1000 * place + number) for number in range(per_case)]
        edits.append({"case": case.label, "n": per_case, **_counted(right)})
    alarms = []
    for place, sort in enumerate(SORTS):
        count = untouched // len(SORTS) + (place < untouched % len(SORTS))
        raised = [_untouched(sort, seed=10**6 + 1000 * place + number) for number in range(count)]
        alarms.append({"group": sort.group, "case": sort.label, "n": count, **_counted(raised)})
    return {"edits": edits, "untouched": alarms, "families": list(CONFIGS), **describe()}


def _counted(outcomes: list[dict[str, bool]]) -> dict[str, Any]:
    counts = {way: sum(outcome[way] for outcome in outcomes) for way in WAYS}
    return {**counts, "intervals": {way: vars(share(counts[way], len(outcomes))) for way in WAYS}}


def _start(seed: int) -> tuple[Any, torch.dtype]:
    torch.manual_seed(seed)
    return random_model(list(CONFIGS)[seed % len(CONFIGS)]), DTYPES[seed // len(CONFIGS) % len(DTYPES)]


def _untouched(sort: Sort, seed: int) -> dict[str, bool]:
    """Whether directions are found in a model to which only `sort` happened; its base is the model before."""
    model, dtype = _start(seed)
    with tempfile.TemporaryDirectory() as folder:
        base, changed = Path(folder) / "base", Path(folder) / "changed"
        model.to(dtype).save_pretrained(base)
        sort.happen(model.float())
        model.to(dtype).save_pretrained(changed)
        return {way: finding.count > 0 for way, finding in _findings(changed, base).items()}


def _edited(case: Case, seed: int) -> dict[str, bool]:
    """Whether the verdict on an edit is right."""
    model, dtype = _start(seed)
    if case.small_channel:
        scale_channels(0.1)(model)
    with tempfile.TemporaryDirectory() as folder:
        base, changed = Path(folder) / "base", Path(folder) / "changed"
        model.to(dtype).save_pretrained(base)
        removed_HK = _edit(case, base, changed)
        if case.noise:
            _move(changed, case.noise, dtype)
        findings = _findings(changed, base)
        return {way: _is_right(finding, removed_HK, case.alpha) for way, finding in findings.items()}


def _findings(checkpoint: Path, base: Path) -> dict[str, Finding]:
    opened = open_checkpoint(checkpoint)
    return {"alone": audit(opened), "with_base": audit(opened, open_checkpoint(base))}


def _edit(case: Case, base: Path, out: Path) -> Tensor:
    """Write the edited checkpoint; returns what was removed, (H, K)."""
    count = BLOCKS if case.blocks is None else case.blocks
    blocks = torch.randperm(BLOCKS)[:count].tolist()
    bases, source = [], base
    for number, some in enumerate([[block] for block in blocks] if case.own else [blocks]):
        bases.append(orthonormal_basis(torch.randn(case.rank, HIDDEN)))
        checkpoint, target = open_checkpoint(source), out if not case.own or number == count - 1 else out.with_name(f"{number}")
        plan = plan_edit(checkpoint, Scope(layers=frozenset(some)))
        write_edited(checkpoint, plan, Edit(bases[-1], case.alpha), target, record={}, card=lambda proofs: "")
        source = target
    return torch.cat(bases, dim=1)


def _move(folder: Path, size: float, dtype: torch.dtype) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    add_noise(size)(model)
    model.to(dtype).save_pretrained(folder)


def _is_right(found: Finding, removed_HK: Tensor, alpha: float) -> bool:
    if found.verdict != kind_of(alpha) or found.count != removed_HK.shape[1]:
        return False
    span_HK = torch.linalg.qr(removed_HK)[0]
    return float(torch.linalg.svdvals(span_HK.T @ found.directions_HK).min()) > 0.99
