"""A plan of an edit: which tensors change, and why the others stay.

Every tensor of a checkpoint is classified before the first is touched.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from editing.checkpoint import Checkpoint, unknown_type
from editing.errors import EditError
from editing.families import FAMILIES, Family, Writer
from editing.families.base import ATTENTION, BIAS, EMBEDDING, MLP, POSITION, KnownTensor
from editing.header import DTYPES, TensorEntry
from editing.naming import why_unknown
from editing.tying import Head, head_of

PROJECTIONS = frozenset({ATTENTION, MLP})


@dataclass(frozen=True)
class Scope:
    """The reach of an edit. The default is the study's: attention and MLP output projections of every block.

    layers: blocks to edit; None for all.
    alpha_by_layer: shares for some blocks, in place of the edit's alpha.
    untie: where embedding and head are one tensor, write the head as a tensor of its own. Then only the writer changes.
    """

    embeddings: bool = False
    biases: bool = False
    layers: frozenset[int] | None = None
    alpha_by_layer: Mapping[int, float] = field(default_factory=dict)
    untie: bool = False

    @property
    def roles(self) -> frozenset[str]:
        more = ({EMBEDDING, POSITION} if self.embeddings else set()) | ({BIAS} if self.biases else set())
        return PROJECTIONS | more

    @property
    def label(self) -> str:
        """A short name for cards: o_proj+down_proj, and what is edited beside them."""
        parts = ["o_proj+down_proj"]
        parts += ["embeddings"] if self.embeddings else []
        parts += ["biases"] if self.biases else []
        return "+".join(parts)


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that writes to the residual stream, edited or left.

    alpha: its own share; None where the edit's holds.
    gain: the checkpoint's name of the norm behind it; None where there is none.
    reason: why it is left; "" where it is edited.
    """

    name: str
    role: str
    layer: int | None
    shape: tuple[int, ...]
    axis: int
    gain: str | None
    gain_offset: float
    alpha: float | None
    reason: str


@dataclass(frozen=True)
class EditPlan:
    """Every writer of a checkpoint, embeddings first, then by block.

    ties_head: the embedding is also the output head.
    """

    writers: tuple[PlannedTensor, ...]
    scope: Scope
    ties_head: bool

    @property
    def edited(self) -> tuple[PlannedTensor, ...]:
        return tuple(tensor for tensor in self.writers if not tensor.reason)

    @property
    def edits_head(self) -> bool:
        """True where the output head changes too, because it is the embedding."""
        return self.ties_head and self.scope.embeddings and not self.scope.untie


def family_of(checkpoint: Checkpoint) -> Family:
    """A checkpoint's family, by its model type. Raises EditError for a type that is not known."""
    family = FAMILIES.get(checkpoint.model_type)
    if checkpoint.model_type == "qwen":
        raise EditError(f"{checkpoint.directory} is Qwen-1, which vLLM no longer runs. Convert it: bin/convert-qwen1 IN OUT.")
    if family is None:
        raise EditError(unknown_type(checkpoint.model_type))
    return family


def known_tensors(checkpoint: Checkpoint, family: Family) -> dict[str, KnownTensor]:
    """Every tensor of a checkpoint as its family lists it. Raises EditError for names that it does not list, with the cause."""
    found = {name: family.classify(name, checkpoint.num_layers) for name in checkpoint.tensors}
    if unknown := [name for name, known in found.items() if known is None]:
        raise EditError(
            f"{checkpoint.directory}: {why_unknown(family, unknown)} An unknown tensor might write to the residual stream, so "
            "nothing is edited."
        )
    return {name: known for name, known in found.items() if known is not None}


def plan_edit(checkpoint: Checkpoint, scope: Scope | None = None) -> EditPlan:
    """Every writer of the checkpoint, edited or left with a reason.

    scope: None for the study's.
    Raises EditError for a tensor the family does not know, a block that lacks a writer, or a layer that the model does not
    have. A shape or dtype that an edit cannot take is an EditError too.
    """
    scope = scope or Scope()
    _check_scope(checkpoint, scope)
    family = family_of(checkpoint)
    known = known_tensors(checkpoint, family)
    writers = [_planned(checkpoint, checkpoint.tensors[name], k, scope) for name, k in known.items() if k.writer is not None]
    _check_complete(checkpoint, writers)
    ordered = sorted(
        writers, key=lambda tensor: (-1 if tensor.layer is None else tensor.layer, tensor.role, _natural(tensor.name))
    )
    head = head_of(checkpoint, family)
    _check_untie(scope, head)
    if head.tied and head.name is not None and not scope.untie:  # a spare copy: loaders tie only what stays equal
        copy = Writer(head.name, EMBEDDING, axis=-1)
        ordered.insert(0, _planned(checkpoint, checkpoint.tensors[head.name], KnownTensor(copy, None), scope))
    return EditPlan(tuple(ordered), scope, head.tied)


def _check_untie(scope: Scope, head: Head) -> None:
    if scope.untie and not (head.tied and scope.embeddings):
        problem = "the output head is a tensor of its own already" if not head.tied else "the embeddings are not edited"
        raise EditError(
            f"--untie has nothing to do: {problem}. Leave it out" + ("." if not head.tied else ", or add --embeddings.")
        )


def _planned(checkpoint: Checkpoint, entry: TensorEntry, known: KnownTensor, scope: Scope) -> PlannedTensor:
    writer, layer, gain = known.writer, known.layer, known.gain
    assert writer is not None
    _check_tensor(checkpoint, entry, writer)
    if gain is not None and gain not in checkpoint.tensors:
        raise EditError(f"{entry.name} is followed by the norm {gain}, which the checkpoint does not hold.")
    alpha = None if layer is None else scope.alpha_by_layer.get(layer)
    reason = ""
    if writer.role not in scope.roles:
        reason = "not in the scope; add " + ("--biases" if writer.role == BIAS else "--embeddings")
    elif layer is not None and scope.layers is not None and layer not in scope.layers:
        reason = "its block is not in --layers-edited"
    return PlannedTensor(entry.name, writer.role, layer, entry.shape, writer.axis, gain, writer.gain_offset, alpha, reason)


def _check_scope(checkpoint: Checkpoint, scope: Scope) -> None:
    last = checkpoint.num_layers - 1
    for layer in sorted({*(scope.layers or ()), *scope.alpha_by_layer}):
        if not 0 <= layer <= last:
            raise EditError(f"Block {layer} cannot be edited: the model has blocks 0 to {last}.")


def _check_complete(checkpoint: Checkpoint, writers: list[PlannedTensor]) -> None:
    there = {(tensor.layer, tensor.role) for tensor in writers}
    for layer in range(checkpoint.num_layers):
        for role in (ATTENTION, MLP):
            if (layer, role) not in there:
                raise EditError(
                    f"{checkpoint.directory}: block {layer} has no {role} output projection among its tensors. The checkpoint is "
                    f"incomplete, or its layout is not family {checkpoint.model_type}'s."
                )
    if beyond := [tensor.name for tensor in writers if tensor.layer is not None and tensor.layer >= checkpoint.num_layers]:
        raise EditError(f"{checkpoint.directory}: config.json has {checkpoint.num_layers} blocks, but there is {beyond[0]}.")


def _check_tensor(checkpoint: Checkpoint, entry: TensorEntry, writer: Writer) -> None:
    if entry.dtype not in DTYPES:
        raise EditError(
            f"{entry.name} is stored as {entry.dtype}; an edit takes {', '.join(DTYPES)}. Use an unquantised checkpoint."
        )
    if len(entry.shape) not in (1, 2, 3) or entry.shape[writer.axis] != checkpoint.hidden_size:
        raise EditError(
            f"{entry.name} has shape {entry.shape}; expected the hidden size {checkpoint.hidden_size} on axis {writer.axis}."
        )


def _natural(name: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
