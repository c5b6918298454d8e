"""Folds an adapter that bin/edit wrote into its base."""

import json
from pathlib import Path
from typing import Any

from editing.adapter import merge_factors, read_adapter
from editing.card import render_card
from editing.checkpoint import open_checkpoint
from editing.folder import BASIS_FILE, EDIT_FILE
from editing.projection import Edit
from editing.writer import write_edited
from engine.checkpoints.verify import _plan_of
from engine.errors import EngineError
from engine.models.locate import checkpoint_hash
from engine.paths import shorten


def merge_adapter(adapter: Path, base_dir: Path, out: Path) -> dict[str, Any]:
    """Fold an adapter that bin/edit wrote into its base: the folded checkpoint to rounding, proven like one."""
    base = open_checkpoint(base_dir)
    factors = read_adapter(adapter)
    record_file = adapter / EDIT_FILE
    if not record_file.is_file():
        raise EngineError(
            f"{adapter} has no {EDIT_FILE}: it was not written by bin/edit --adapter. Merge other adapters with PEFT."
        )
    record = json.loads(record_file.read_text())
    if record["base_hash"] != checkpoint_hash(base):
        raise EngineError(f"{adapter} was made for the base {shorten(record['base_hash'])}, not for {base_dir}.")
    from safetensors.torch import load_file

    record = {**record, "form": "merged adapter"}
    edit = Edit(load_file(adapter / BASIS_FILE)["basis"], record["alpha"])
    proofs = write_edited(
        base,
        _plan_of(base, record),
        edit,
        out,
        record=record,
        card=lambda proofs: render_card(record, "merged from an adapter; `edit_report.json`"),
        make=lambda tensor, scratch: merge_factors(base.read(tensor.name), *factors[tensor.name]),
    )
    return {**record, "worst_residual": max(proof.residual for proof in proofs)}
