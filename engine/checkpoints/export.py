"""A variant as a checkpoint folder of its own: the run's directions, folded out of the base by editing.writer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editing.adapter import write_adapter
from editing.card import render_card
from editing.folder import EDIT_FILE
from editing.plan import EditPlan
from editing.proof import Proof
from editing.record import FORMAT, read_record
from editing.writer import check_output, left_out, write_edited
from engine.configs.schema import RunConfig
from engine.display.progress import Progress, say
from engine.environment import commit, versions
from engine.models.variant import Variant
from engine.rollout.directions import check_directions, ensure_directions
from engine.rollout.variants import load_variant
from engine.runs.files import DIRECTIONS
from engine.runs.inputs import RunInputs
from engine.runs.of_config import check_has_directions, given_layers, model_name
from engine.runs.recipe import recipe_of
from engine.runs.run_dir import RunDir, open_for_directions
from engine.runs.session import Session
from extraction.directions import CONVENTION


def check_export(session: RunInputs, out: Path) -> None:
    """Raise before any work where `out` cannot be written; a checkpoint of ours is looked at again in `export`."""
    if not (out / EDIT_FILE).is_file():
        check_output(session.checkpoint, out)


def directions_of(session: Session, run_dir: RunDir | None, file: Path | None, *, allow_other_base: bool) -> Path:
    """The directions to use: `file`, if it is of this base or any is allowed; else the run's, extracted if missing."""
    if file is None:
        assert run_dir is not None
        with run_dir.locked():
            ensure_directions(session, run_dir)
        return run_dir.file(DIRECTIONS)
    check_directions(session, file, allow_other_base=allow_other_base)
    return file


def export(
    session: RunInputs,
    variant: Variant,
    out: Path,
    *,
    as_adapter: bool = False,
    layers: Sequence[int] | None = None,
    directions: Path | None = None,
) -> dict[str, Any]:
    """Write a variant to `out`; returns what edit.json holds. The same variant already there is left as it is.

    `layers` are those of the variant's directions; None takes what the variant says, else the configuration's. `directions` is
    the file that they come from, where there is one.
    """
    assert variant.edit is not None
    if (out / EDIT_FILE).is_file():
        there = read_record(out)
        if there.get("variant_hash") == variant.hash and (there.get("form") == "adapter") == as_adapter:
            say(f"{out} holds this variant already ({variant.hash})")
            return there
    if variant.plan.edits_head:
        say("edit: the embedding is also the output head here, so the head changes with it (--untie keeps the head)")
    known = variant.layers if layers is None else layers
    record = edit_record(session, variant, session.layers() if known is None else known)
    record |= recipe_of(session, directions)
    if as_adapter:
        base_model = str(session.checkpoint.directory)
        card = card_of(record, [])
        write_adapter(session.checkpoint, variant.plan, variant.edit, out, base_model=base_model, record=record, card=card)
        return record
    if left := left_out(session.checkpoint):
        say(f"edit: not taken over, weights in another form: {', '.join(left[:5])}{' ...' if len(left) > 5 else ''}")
    with Progress(f"edit {variant.name}", len(variant.plan.edited), "tensors") as progress:
        write_edited(
            session.checkpoint,
            variant.plan,
            variant.edit,
            out,
            record=record,
            card=lambda proofs: card_of(record, proofs),
            on_tensor=lambda name: progress.advance(),
        )
    return record


def edit_record(session: RunInputs, variant: Variant, layers: Sequence[int]) -> dict[str, Any]:
    """The content of edit.json: what was removed, from which tensors, and by which versions."""
    assert variant.edit is not None
    scope = variant.plan.scope
    return {
        "format": FORMAT,
        "variant": variant.name,
        "variant_hash": variant.hash,
        "base_model": model_name(session.config, session.base_hash).split("@")[0],
        "base_hash": session.base_hash,
        "basis_hash": variant.edit.basis_hash,
        "basis_shape": list(variant.edit.basis_HK.shape),
        "alpha": variant.edit.alpha,
        "keep_norms": variant.edit.keep_norms,
        "layers": list(layers),
        "convention": CONVENTION,
        "position": session.config.directions.position,
        "estimator": session.config.directions.estimator,
        "scope": scope.label,
        "untied": scope.untie,
        "edits_head": variant.plan.edits_head,
        "tensors": variant.alphas,
        "versions": versions(),
        "commit": commit(),
    }


def card_of(record: dict[str, Any], proofs: list[Proof]) -> str:
    """The README.md of an edit, with its worst proof; without proofs an adapter's."""
    proof = "this is an adapter; `bin/edit --merge` folds it into the base and proves the result"
    if proofs:
        worst = max(proofs, key=lambda proof: abs(proof.residual - proof.expected))
        proof = (
            f"read back after writing; worst tensor {worst.tensor}: {worst.residual:.2e} of what it wrote along the directions "
            f"is left (expected {worst.expected:g}); all in `edit_report.json`"
        )
    return render_card(record, proof)


def plan_lines(plan: EditPlan) -> list[str]:
    """The plan for people: a line per writer, edited or left and why."""
    lines = []
    for tensor in plan.writers:
        shape = "x".join(map(str, tensor.shape))
        behind = f", behind the norm {tensor.gain}" if tensor.gain else ""
        lines.append(f"{'left' if tensor.reason else 'edit':4}  {tensor.role:18}  {shape:>16}  {tensor.name}{behind}")
        if tensor.reason:
            lines[-1] += f"  ({tensor.reason})"
    if plan.edits_head:
        lines.append("The embedding is also the output head: editing it edits the head. --untie keeps the head as it is.")
    return lines


def write_variant(
    config: RunConfig,
    run_path: Path,
    out: Path,
    *,
    directions: Path | None = None,
    allow_other_base: bool = False,
    as_adapter: bool = False,
) -> dict[str, Any]:
    """The variant as a checkpoint or an adapter in `out`; returns its edit record.

    The directions are those of the file `directions`, or the run's.
    """

    check_has_directions(config, "bin/edit")
    given_layers(config)
    session = Session(config)
    session.layers()
    check_export(session, out)
    if directions is None:
        session.rendered_pairs()  # what a tokenizer or template cannot do shows before a run directory is made
    run_dir = None if directions else open_for_directions(run_path, session.identity)
    file = directions_of(session, run_dir, directions, allow_other_base=allow_other_base)
    variant = load_variant(session, file)
    record = export(session, variant, out, as_adapter=as_adapter, directions=file)
    if as_adapter:
        from engine.checkpoints.adapter_divergence import report_divergence

        record = {**record, "divergence": report_divergence(session, variant, out)}
    return record
