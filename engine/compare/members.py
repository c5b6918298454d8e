"""What `bin/compare` is given: the base's run inputs, and each folder as a variant with its integrity, forensics and claims."""
# L = layers, H = hidden size, K = directions

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editing.forensics import Forensics, forensics_of
from editing.replacement import values_of
from engine.compare.claims import Claim, claims_of
from engine.compare.integrity import integrity_of
from engine.display.progress import say
from engine.errors import EngineError
from engine.models.foreign import replaced
from engine.models.variant import Variant
from engine.paths import user_path
from engine.runs.session import Session

if TYPE_CHECKING:
    from torch import Tensor

BASE = "base"


@dataclass(frozen=True)
class Member:
    """One folder: the variant that it is, and what its files tell."""

    variant: Variant
    integrity: dict[str, Any]
    claims: list[Claim]

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def apart(self) -> str:
        """Why it takes an engine of its own; "" where the base's holds it."""
        return self.variant.replacement.apart if self.variant.replacement is not None else ""


def open_members(session: Session, folders: Sequence[str]) -> list[Member]:
    """Every folder looked at, before a model loads. Raises for one that cannot be compared with the base."""
    if not folders:
        raise EngineError("Name the folders to compare with the base: bin/compare BASE A B ...")
    members = []
    for name, folder in zip(names_of(folders), folders, strict=True):
        variant = replaced(name, folder, session.checkpoint, session.base_hash, session.plan)
        assert variant.replacement is not None
        integrity = integrity_of(variant.replacement, session.checkpoint)
        members.append(Member(variant, integrity, claims_of(variant.replacement.directory)))
    _check_unlike(members)
    for member in members:
        say(f"compare: {member.name}: {_told(member)}")
    return members


def names_of(folders: Sequence[str]) -> list[str]:
    """A name for each folder: its last part, with the part before it where two have the same."""
    paths = [user_path(folder).resolve() for folder in folders]
    short = [path.name for path in paths]
    names = [name if short.count(name) == 1 else f"{path.parent.name}-{name}" for name, path in zip(short, paths, strict=True)]
    if repeated := next((name for name in names if names.count(name) > 1 or name == BASE), None):
        raise EngineError(f"Two of the folders would go by the name '{repeated}'. Give each a name of its own, by a link.")
    return names


def look(session: Session, member: Member) -> Forensics:
    """The forensics of a member."""
    replacement = member.variant.replacement
    assert replacement is not None
    read = values_of(replacement.directory, replacement.form, session.checkpoint)
    return forensics_of(replacement, read, session.checkpoint)


def given_units(session: Session, file: Path | None) -> "Tensor | None":
    """The unit directions of every layer (L+1, H) of a directions file. Raises where it is of another base."""
    if file is None:
        return None
    from engine.rollout.directions import check_directions
    from extraction.directions import unit_rows
    from extraction.files import load_directions

    check_directions(session, file)
    return unit_rows(load_directions(file).direction_LH)


def _check_unlike(members: Sequence[Member]) -> None:
    for place, member in enumerate(members):
        if twin := next((other for other in members[:place] if other.variant.hash == member.variant.hash), None):
            raise EngineError(f"{twin.name} and {member.name} hold the same weights: leave one of them out.")


def _told(member: Member) -> str:
    replacement = member.variant.replacement
    assert replacement is not None
    changed = f"{len(replacement.names)} tensors differ from the base"
    return f"{changed}; an engine of its own, since {member.apart}" if member.apart else changed
