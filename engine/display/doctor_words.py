"""`bin/doctor`'s answer in words: a table of facts, and what stands against using the model."""

from collections.abc import Mapping, Sequence

from engine.display.table import Table, View


def doctor_view(model: str, facts: Mapping[str, str], against: Sequence[str], following: str) -> View:
    """A table of what was found; the verdict; each obstacle as a sentence; the command to try next."""
    rows = [[name, value] for name, value in facts.items()]
    verdict = "It can be used." if not against else f"{len(against)} thing(s) stand against using it:"
    return [Table(model, ["question", "answer"], rows), verdict, *against, *([f"Next: {following}"] if following else [])]
