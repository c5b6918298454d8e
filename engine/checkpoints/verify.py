"""Checks of checkpoints that are there already, for `bin/edit --verify`, `--merge` and `bin/audit`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from editing.audit import audit
from editing.checkpoint import Checkpoint, open_checkpoint
from editing.compare import Comparison, differing_tensors, prove_against
from editing.errors import EditError
from editing.finding import Finding
from editing.folder import BASIS_FILE, EDIT_FILE
from editing.plan import EditPlan, Scope, plan_edit
from editing.projection import Edit
from editing.proof import Proof
from editing.record import read_edit, read_record
from engine.errors import EngineError
from engine.models.locate import checkpoint_hash
from engine.paths import shorten, write_bytes


def verify_checkpoint(directory: Path, base_dir: Path) -> dict[str, Any]:
    """Every tensor of `directory` against the base's, and the proof of each edited one: along the basis that our folders
    hold, else along the directions that the difference shows.

    `ok` is False where a tensor differs that should not or cannot be compared, or an edited one still writes the directions.
    A copy in another type, or with other rows of the vocabulary, is compared by its values.
    """
    checkpoint, base = open_checkpoint(directory), open_checkpoint(base_dir)
    if not ((directory / BASIS_FILE).is_file() and (directory / EDIT_FILE).is_file()):
        return _verify_unknown(checkpoint, base)
    record = read_record(directory)
    check_base(directory, record, base)
    edit, plan = read_edit(directory, record, base.hidden_size), plan_of(base, record)
    proofs = prove_against(checkpoint, base, plan.edited, edit)
    return _report(differing_tensors(checkpoint, base), proofs, set(record["tensors"]))


def check_base(directory: Path, record: dict[str, Any], base: Checkpoint) -> None:
    """Raise EngineError where a record is not of this base."""
    if record["base_hash"] != checkpoint_hash(base):
        raise EngineError(
            f"{directory} was made from the base {shorten(record['base_hash'])}, not from {base.directory}. Give that base: a "
            "copy of it in another type, or with another vocabulary, is another base."
        )


def _verify_unknown(checkpoint: Checkpoint, base: Checkpoint) -> dict[str, Any]:
    """A checkpoint made elsewhere: what differs, and what the differing writers still write along the directions that the
    difference itself shows."""
    found = differing_tensors(checkpoint, base)
    try:
        finding = audit(checkpoint, base)
    except EditError as error:
        return _report(found, [], None) | {"note": f"made elsewhere; what it removed cannot be told: {error}"}
    if finding.count == 0 or finding.alpha is None:
        return _report(found, [], None) | {
            "note": "made elsewhere; the difference shows no removed direction: " + " ".join(finding.evidence)
        }
    edit = Edit(finding.directions_HK, finding.alpha)
    changed = [tensor for tensor in plan_edit(base).edited if tensor.name in set(found.differing)]
    proofs = prove_against(checkpoint, base, changed, edit)
    note = f"made elsewhere; {finding.count} direction(s) recovered from the difference, share removed {finding.alpha:.3f}"
    return _report(found, proofs, None) | {"note": note}


def audit_checkpoint(directory: Path, base_dir: Path | None, out: Path | None) -> dict[str, Any]:
    """The audit's finding as plain data; recovered directions go to `out` as safetensors (`basis`, (H, K) float64)."""
    checkpoint = open_checkpoint(directory)
    finding = audit(checkpoint, open_checkpoint(base_dir) if base_dir else None)
    if out is not None:
        _save_directions(finding, out)
    fields = {key: value for key, value in vars(finding).items() if key != "directions_HK"}
    return {"directory": str(directory), "base": str(base_dir) if base_dir else None, **fields}


def _save_directions(finding: Finding, out: Path) -> None:
    from safetensors.torch import save

    if finding.count == 0:
        raise EngineError(f"No directions were recovered, so {out} was not written.")
    if out.exists() or out.is_symlink():
        raise EditError(f"{out} exists already. Choose another with --out.")
    basis_HK = finding.directions_HK.to(torch.float64).contiguous()
    write_bytes(out, save({"basis": basis_HK}, {"format": "refusal-basis/1"}))


def plan_of(base: Checkpoint, record: dict[str, Any]) -> EditPlan:
    """The plan of a record: its tensors, each with its own alpha. Raises EngineError for one that no edit of the base changes."""
    plan = plan_edit(base, Scope(embeddings=True, biases=True))
    alphas = record["tensors"]
    if unknown := sorted(alphas.keys() - {tensor.name for tensor in plan.writers}):
        raise EngineError(f"The record of the edit names {unknown[0]}, which is no tensor of the base that an edit changes.")
    return replace(plan, writers=tuple(replace(t, alpha=alphas[t.name]) for t in plan.writers if t.name in alphas))


def _report(found: Comparison, proofs: list[Proof], expected: set[str] | None) -> dict[str, Any]:
    unexpected = sorted(set(found.differing) - expected) if expected is not None else []
    failed = [proof.tensor for proof in proofs if not proof.holds]
    faults = [] if expected is None else [*unexpected, *failed, *found.missing]
    return {
        "ok": not (faults or found.odd),
        "differing": found.differing,
        "unexpected": unexpected,
        "converted": found.converted,
        "padded": found.padded,
        "odd": found.odd,
        "missing": found.missing,
        "added": found.added,
        "failed": failed,
        "proofs": [vars(proof) for proof in proofs],
    }
