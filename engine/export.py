"""A variant as a checkpoint folder of its own: the run's directions, folded out of the base by editing.writer."""

import json
from pathlib import Path
from typing import Any

from editing.card import render_card
from editing.writer import EDIT_FILE, check_output, write_edited
from engine.environment import commit, versions
from engine.progress import Progress, say
from engine.rundir import RunDir
from engine.session import Session, model_name
from engine.stages import ensure_directions, load_variant
from engine.variants import Variant
from extraction.directions import CONVENTION, POSITION


def check_export(session: Session, out: Path) -> None:
    """Raise before any work where `out` cannot be written; a checkpoint of ours is looked at again in `export`."""
    if not (out / EDIT_FILE).is_file():
        check_output(session.checkpoint, out)


def export(session: Session, run_dir: RunDir, out: Path) -> dict[str, Any]:
    """Write the session's variant to `out`; returns what edit.json holds. The same variant already there is left as it is."""
    ensure_directions(session, run_dir)
    variant = load_variant(session, run_dir)
    assert variant.edit is not None
    if (out / EDIT_FILE).is_file():
        there = json.loads((out / EDIT_FILE).read_text())
        if there["variant_hash"] == variant.hash:
            say(f"{out} holds this variant already ({variant.hash})")
            return there
    record = edit_record(session, variant)
    fields = {"label": variant.name, "num_tensors": len(variant.plan.edited), "k": record["basis_shape"][1]}
    with Progress(f"edit {variant.name}", len(variant.plan.edited), "tensors") as progress:
        write_edited(
            session.checkpoint,
            variant.plan,
            variant.edit,
            out,
            record=record,
            card=render_card(**record, **fields),
            on_tensor=lambda name: progress.advance(),
        )
    return record


def edit_record(session: Session, variant: Variant) -> dict[str, Any]:
    """What was removed, from what, by what: the content of edit.json."""
    assert variant.edit is not None
    return {
        "format": "refusal-edit/1",
        "variant": variant.name,
        "variant_hash": variant.hash,
        "base_model": model_name(session.config, session.base_hash).split("@")[0],
        "base_hash": session.base_hash,
        "basis_hash": variant.edit.basis_hash,
        "basis_shape": list(variant.edit.basis_HK.shape),
        "alpha": variant.edit.alpha,
        "layers": session.layers,
        "convention": CONVENTION,
        "position": POSITION,
        "scope": variant.plan.scope,
        "tensors": list(variant.plan.edited),
        "versions": versions(),
        "commit": commit(),
    }
