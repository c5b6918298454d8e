"""Folds an adapter that bin/edit wrote into its base."""

from pathlib import Path
from typing import Any

from editing.adapter import check_factors, merge_factors, read_adapter
from editing.card import render_card
from editing.checkpoint import open_checkpoint
from editing.folder import EDIT_FILE
from editing.record import read_edit, read_record
from editing.writer import write_edited
from engine.checkpoints.verify import check_base, plan_of
from engine.errors import EngineError


def merge_adapter(adapter: Path, base_dir: Path, out: Path) -> dict[str, Any]:
    """Fold an adapter that bin/edit wrote into its base: the folded checkpoint to rounding, proven like one."""
    base = open_checkpoint(base_dir)
    factors = read_adapter(adapter)
    if not (adapter / EDIT_FILE).is_file():
        raise EngineError(
            f"{adapter} has no {EDIT_FILE}: it was not written by bin/edit --adapter. Merge other adapters with PEFT."
        )
    record = {**read_record(adapter), "form": "merged adapter"}
    check_base(adapter, record, base)
    edit, plan = read_edit(adapter, record, base.hidden_size), plan_of(base, record)
    check_factors(factors, plan)
    proofs = write_edited(
        base,
        plan,
        edit,
        out,
        record=record,
        card=lambda proofs: render_card(record, "merged from an adapter; `edit_report.json`"),
        make=lambda tensor, scratch: merge_factors(base.read(tensor.name), *factors[tensor.name]),
    )
    return {**record, "worst_residual": max(proof.residual for proof in proofs)}
