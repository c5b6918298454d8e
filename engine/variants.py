"""A variant: an edit of a base checkpoint, known by its content. The name is a label, the hash the identity."""

import hashlib
import json
from dataclasses import dataclass

from editing.plan import EditPlan
from editing.projection import Edit

HASH_DIGITS = 16


@dataclass(frozen=True)
class Variant:
    """A base checkpoint's hash, the plan of its tensors, and the edit; `edit` None is the base itself."""

    name: str
    base_hash: str
    plan: EditPlan
    edit: Edit | None

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of base hash, basis hash, alpha and the edited tensors' names."""
        identity = {
            "base": self.base_hash,
            "basis": self.edit.basis_hash if self.edit else None,
            "alpha": self.edit.alpha if self.edit else 0.0,
            "tensors": list(self.plan.edited) if self.edit else [],
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]
