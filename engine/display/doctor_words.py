"""`bin/doctor`'s answer in words: a table of facts, and what stands against using the model."""

from collections.abc import Mapping, Sequence

from engine.display.table import Table, View


def doctor_view(model: str, facts: Mapping[str, str], against: Sequence[str], following: str) -> View:
    """A table of what was found; the verdict; each obstacle as a sentence; the command to try next."""
    rows = [[name, value] for name, value in facts.items()]
    counted = "One thing stands" if len(against) == 1 else f"{len(against)} things stand"
    verdict = f"{counted} against using it:" if against else "It can be used."
    table = [Table(model, ["question", "answer"], rows)] if rows else [model]
    return [*table, verdict, *against, *([f"Next: {following}"] if following else [])]
