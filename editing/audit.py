"""An audit of what a model can write: are directions missing? Reads a checkpoint's writers, with or without its base.

`editing.missing` looks at a checkpoint alone, `editing.change` at what it has of its base. A base only adds to what is seen:
where the change shows nothing, the checkpoint is looked at alone.
"""

from dataclasses import replace

from editing.change import audit_change
from editing.checkpoint import Checkpoint
from editing.errors import EditError
from editing.finding import CANNOT_TELL, NONE, Finding
from editing.missing import audit_alone, energy_shares
from editing.plan import PlannedTensor, plan_edit

WEAKENED = 0.3  # of the mean energy along a direction: at least partly gone


def audit(checkpoint: Checkpoint, base: Checkpoint | None = None) -> Finding:
    """The directions that were projected out of a checkpoint's attention and MLP output projections, if any.

    base: the checkpoint it was edited from, where it is at hand. Raises EditError where it is another model's.
    """
    writers = plan_edit(checkpoint).edited
    if base is None:
        return audit_alone(checkpoint, writers)
    _check_base(checkpoint, base)
    against = audit_change(checkpoint, base, writers)
    if against.count:
        return against
    alone = audit_alone(checkpoint, writers)
    if alone.count:
        return replace(alone, evidence=[*alone.evidence, *against.evidence, _base_sentence(base, writers, alone)])
    # The change was seen, so narrow writers are no reason to leave the matter open.
    verdict = against.verdict if alone.verdict in (NONE, CANNOT_TELL) else alone.verdict
    axes = sorted({*alone.axes, *against.axes})
    return replace(against, verdict=verdict, axes=axes, evidence=[*against.evidence, *alone.evidence])


def _check_base(checkpoint: Checkpoint, base: Checkpoint) -> None:
    is_other = set(base.tensors) - {"lm_head.weight"} != set(checkpoint.tensors) - {"lm_head.weight"}
    if base.hidden_size != checkpoint.hidden_size or is_other:
        raise EditError(f"{base.directory} is not the base of {checkpoint.directory}: their tensors differ in names or width.")


def _base_sentence(base: Checkpoint, writers: tuple[PlannedTensor, ...], found: Finding) -> str:
    if min(energy_shares(base, writers, found.directions_HK).values()) < WEAKENED:
        return "The base misses directions there too: they were not taken out between the two."
    return "The base writes them; the change from it is too spread out to show them."
