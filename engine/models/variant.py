"""A variant: an edit of a base checkpoint, known by its content. The name is a label, the hash the identity."""

from dataclasses import dataclass
from functools import cached_property

from editing.plan import EditPlan
from editing.projection import BEHIND_NORMS, Edit
from editing.replacement import Replacement
from engine.paths import hash_of


@dataclass(frozen=True)
class Variant:
    """A base checkpoint's hash, the plan of its tensors, and the edit; without an edit and a replacement it is the base itself.

    `replacement` is a checkpoint or adapter of others, and `contents` the hash of its weights. `layers` says where its
    directions come from, for its card: a label, as the name is. None where nobody said.
    """

    name: str
    base_hash: str
    plan: EditPlan
    edit: Edit | None
    layers: tuple[int, ...] | None = None
    replacement: Replacement | None = None
    contents: str = ""

    @property
    def is_base(self) -> bool:
        """Whether it is the base as it is."""
        return self.edit is None and self.replacement is None

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of base hash, basis hash, edited tensors with their alphas, and method."""
        identity = {
            "base": self.base_hash,
            "basis": self.edit.basis_hash if self.edit else None,
            "alphas": self.alphas,
            "keep_norms": self.edit.keep_norms if self.edit else False,
            "untied": self.plan.scope.untie if self.edit else False,
        }
        replaced = {"replaced": self.contents} if self.replacement is not None else {}
        return hash_of(identity | self._behind_norms | replaced)

    @property
    def _behind_norms(self) -> dict[str, str]:
        """The operator in front of norms, where the edit has one there: another operator is another variant."""
        fronted = self.edit is not None and any(tensor.gain for tensor in self.plan.edited)
        return {"behind_norms": BEHIND_NORMS} if fronted else {}

    @property
    def alphas(self) -> dict[str, float]:
        """The share removed from each edited tensor, by name; empty for the base."""
        if self.edit is None:
            return {}
        return {tensor.name: self.edit.alpha if tensor.alpha is None else tensor.alpha for tensor in self.plan.edited}
