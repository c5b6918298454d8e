"""Checks of checkpoints that are there already, for `bin/edit --verify`, `--merge` and `bin/audit`."""

import json
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
from engine.errors import EngineError
from engine.models.locate import checkpoint_hash
from engine.paths import shorten


def verify_checkpoint(directory: Path, base_dir: Path) -> dict[str, Any]:
    """Every tensor of `directory` against the base's, and the proof of each edited one: along the basis that our folders
    hold, else along the directions that the difference shows.

    `ok` is False where a tensor differs that should not, or an edited one still writes the directions.
    """
    checkpoint, base = open_checkpoint(directory), open_checkpoint(base_dir)
    basis_file, record_file = directory / BASIS_FILE, directory / EDIT_FILE
    if not (basis_file.is_file() and record_file.is_file()):
        return _verify_unknown(checkpoint, base)
    from safetensors.torch import load_file

    record = json.loads(record_file.read_text())
    if record["base_hash"] != checkpoint_hash(base):
        raise EngineError(f"{directory} was made from the base {shorten(record['base_hash'])}, not from {base_dir}.")
    edit = Edit(load_file(basis_file)["basis"], record["alpha"], record["keep_norms"])
    proofs = prove_against(checkpoint, base, _plan_of(base, record).edited, edit)
    return _report(differing_tensors(checkpoint, base), proofs, set(record["tensors"]))


def _verify_unknown(checkpoint: Checkpoint, base: Checkpoint) -> dict[str, Any]:
    """A checkpoint made elsewhere: what differs, and what the differing writers still write along the directions that the
    difference itself shows."""
    found = differing_tensors(checkpoint, base)
    finding = audit(checkpoint, base)
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
    from safetensors.torch import save_file

    if finding.count == 0:
        raise EngineError(f"No directions were recovered, so {out} was not written.")
    if out.exists():
        raise EditError(f"{out} exists already. Choose another with --out.")
    save_file({"basis": finding.directions_HK.to(torch.float64).contiguous()}, out, {"format": "refusal-basis/1"})


def _plan_of(base: Checkpoint, record: dict[str, Any]) -> EditPlan:
    """The plan of a record: its tensors, each with its own alpha."""
    plan = plan_edit(base, Scope(embeddings=True, biases=True))
    alphas = record["tensors"]
    return replace(plan, writers=tuple(replace(t, alpha=alphas[t.name]) for t in plan.writers if t.name in alphas))


def _report(found: Comparison, proofs: list[Proof], expected: set[str] | None) -> dict[str, Any]:
    unexpected = sorted(set(found.differing) - expected) if expected is not None else []
    failed = [proof.tensor for proof in proofs if not proof.holds]
    return {
        "ok": expected is None or not (unexpected or failed or found.missing),
        "differing": found.differing,
        "unexpected": unexpected,
        "missing": found.missing,
        "added": found.added,
        "failed": failed,
        "proofs": [vars(proof) for proof in proofs],
    }
