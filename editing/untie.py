"""Writes the output head as a tensor of its own where the embedding was both, so that an edit changes only the writer."""

import json
from pathlib import Path

from editing.checkpoint import INDEX_NAME, Checkpoint
from editing.errors import EditError
from editing.families.base import EMBEDDING
from editing.plan import family_of, known_tensor

SINGLE, FIRST, HEAD_FILE = "model.safetensors", "model-base.safetensors", "model-lm_head.safetensors"


def untie_head(checkpoint: Checkpoint, target: Path) -> None:
    """Add the base's embedding as the head in a file of its own, list every tensor in an index, and untie config.json."""
    from safetensors.torch import save_file

    family, embedding = family_of(checkpoint), embedding_of(checkpoint)
    save_file({family.head: checkpoint.read(embedding).contiguous()}, target / HEAD_FILE, {"format": "pt"})
    # transformers looks at model.safetensors before an index, so a single file gets another name.
    names = {SINGLE: FIRST}
    if (target / SINGLE).is_file():
        (target / SINGLE).rename(target / FIRST)
    weight_map = {name: names.get(entry.file.name, entry.file.name) for name, entry in checkpoint.tensors.items()}
    weight_map[family.head] = HEAD_FILE
    head = checkpoint.tensors[embedding]
    total = sum(entry.end - entry.begin for entry in checkpoint.tensors.values()) + head.end - head.begin
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (target / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}, indent=2) + "\n")


def embedding_of(checkpoint: Checkpoint) -> str:
    """Name of the checkpoint's one embedding. Raises EditError where there is none, or several."""
    family = family_of(checkpoint)
    writers = {name: known_tensor(family, name).writer for name in checkpoint.tensors}
    found = [name for name, writer in writers.items() if writer is not None and writer.role == EMBEDDING]
    if len(found) != 1:
        raise EditError(f"Expected one embedding to untie the head from, found {len(found)}.")
    return found[0]
