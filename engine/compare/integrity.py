"""Is a folder whole, and does it speak as its base does? Tensors, types, tokenizer, template, settings; no weight is loaded.

What makes a comparison impossible is an error: another vocabulary. All else is told.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from editing.adapter import CONFIG_FILE
from editing.checkpoint import PROVENANCE, Checkpoint, open_checkpoint
from editing.reading import read_object
from editing.replacement import Replacement
from engine.errors import EngineError
from engine.models.tokenizer import STOP_FILES, open_tokenizer
from engine.runs.schemas import Row

SAME, NONE = "same", "none"
AGAIN = "Copy it again."


def integrity_of(replacement: Replacement, base: Checkpoint) -> Row:
    """What a folder lacks, adds or says otherwise than its base. Raises EngineError for another vocabulary."""
    folder = replacement.directory
    if (folder / CONFIG_FILE).is_file():
        return {"form": "adapter", "dtype": "-", **_beside(folder, base)}
    checkpoint = open_checkpoint(folder)
    found = replacement.comparison
    assert found is not None
    return {
        "form": "checkpoint",
        "dtype": _types(checkpoint, base),
        "missing": found.missing,
        "added": found.added,
        "padded": found.padded,
        "odd": found.odd,
        "converted": len(found.converted),
        "settings": _differing(checkpoint.config, base.config, PROVENANCE),
        **_beside(folder, base),
    }


def problems_of(integrity: Row) -> list[str]:
    """What is not as the base has it, a few words each; empty for a sound folder."""
    found = [f"{name} {len(integrity[name])} tensors" for name in ("missing", "added", "padded", "odd") if integrity.get(name)]
    if integrity.get("converted"):
        found.append(f"stored as {integrity['dtype']}")
    for name in ("tokenizer", "template"):
        if integrity[name] not in (SAME, NONE):
            found.append(f"{name}: {integrity[name]}")
    for name in ("generation", "settings"):
        if integrity.get(name):
            found.append(f"{name}: {', '.join(integrity[name])}")
    return found


def _types(checkpoint: Checkpoint, base: Checkpoint) -> str:
    """The stored types, the commonest first; SAME where they are the base's."""
    ours, theirs = (Counter(entry.dtype for entry in one.tensors.values()) for one in (checkpoint, base))
    return SAME if set(ours) == set(theirs) else ", ".join(name for name, _ in ours.most_common())


def _beside(folder: Path, base: Checkpoint) -> Row:
    return {**_tokenizer(folder, base), "generation": _generation(folder, base.directory)}


def _tokenizer(folder: Path, base: Checkpoint) -> Row:
    """Vocabulary and chat template against the base's. Raises EngineError where a token has another number."""
    try:
        ours = open_tokenizer(folder, quick=True)
    except EngineError as error:
        return {"tokenizer": NONE if "has no tokenizer" in str(error) else "cannot be read", "template": NONE}
    theirs = open_tokenizer(base.directory, quick=True)
    here, there = ours.get_vocab(), theirs.get_vocab()
    if moved := sorted(token for token, number in there.items() if here.get(token, number) != number):
        raise EngineError(
            f"{folder} has another vocabulary than the base {base.directory}: {moved[0]!r} is token {here[moved[0]]}, expected "
            f"{there[moved[0]]}. Give the base that it was made from."
        )
    extra, lost = len(here.keys() - there.keys()), len(there.keys() - here.keys())
    changes = [f"{count} tokens {word}" for count, word in ((extra, "more"), (lost, "fewer")) if count]
    template = ours.chat_template
    same = template == theirs.chat_template
    return {"tokenizer": ", ".join(changes) or SAME, "template": NONE if not template else SAME if same else "another"}


def _generation(folder: Path, base: Path) -> list[str]:
    """Keys of generation_config.json that differ; none where the folder has none."""
    ours, theirs = folder / STOP_FILES[0], base / STOP_FILES[0]
    if not ours.is_file():
        return []
    there = read_object(theirs, AGAIN) if theirs.is_file() else {}
    return _differing(read_object(ours, AGAIN), there, PROVENANCE)


def _differing(ours: dict[str, Any], theirs: dict[str, Any], ignored: set[str]) -> list[str]:
    names = {*ours, *theirs} - ignored - {"_model_name_or_path", "architectures"}
    return sorted(name for name in names if ours.get(name) != theirs.get(name))
