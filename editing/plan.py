"""Which tensors an edit changes: every one of a checkpoint is classified before the first is touched."""

from dataclasses import dataclass

from editing.checkpoint import DTYPES, Checkpoint
from editing.errors import EditError
from editing.families import FAMILIES, Family

SCOPE = "o_proj+down_proj"  # the study's edit: attention and MLP output projections of every block


@dataclass(frozen=True)
class EditPlan:
    """The tensors to edit, in checkpoint order of layers, and the scope's name, which is part of a variant's identity."""

    edited: tuple[str, ...]
    scope: str = SCOPE


def family_of(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint's model type; EditError for one that is not known."""
    family = FAMILIES.get(checkpoint.model_type)
    if family is None:
        raise EditError(
            f"Model type '{checkpoint.model_type}' is not known to the editor, which knows {', '.join(sorted(FAMILIES))}. "
            "Its writers to the residual stream would be a guess; add a file to editing/families/."
        )
    return family


def plan_edit(checkpoint: Checkpoint) -> EditPlan:
    """Every o_proj and down_proj of the checkpoint.

    Raises EditError for a tensor the family does not know, a block that lacks a writer, or a shape or dtype that an
    edit cannot take.
    """
    family = family_of(checkpoint)
    found: dict[tuple[int, str], str] = {}
    for name in checkpoint.tensors:
        writer, layer = family.classify(name)
        if writer is not None and layer is not None:
            found[layer, writer.name] = name
    wanted = [(layer, writer.name) for layer in range(checkpoint.num_layers) for writer in family.writers]
    absent = [name.format(layer=layer) for layer, name in wanted if (layer, name) not in found]
    if absent or len(found) > len(wanted):
        problem = f"missing: {', '.join(absent[:3])}" if absent else f"{len(found)} writers for {checkpoint.num_layers} blocks"
        raise EditError(f"{checkpoint.directory}: the writers do not match config.json; {problem}.")
    for name in found.values():
        _check_tensor(checkpoint, name)
    return EditPlan(tuple(found[key] for key in wanted))


def _check_tensor(checkpoint: Checkpoint, name: str) -> None:
    entry = checkpoint.tensors[name]
    if len(entry.shape) != 2 or entry.shape[0] != checkpoint.hidden_size:
        raise EditError(f"{name} has shape {entry.shape}; expected (hidden size {checkpoint.hidden_size}, input size).")
    if entry.dtype not in DTYPES:
        raise EditError(f"{name} is stored as {entry.dtype}; an edit takes {', '.join(DTYPES)}. Use an unquantised checkpoint.")
