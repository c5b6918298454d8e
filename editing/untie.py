"""Writes the output head as a tensor of its own where the embedding was both, so that an edit changes only the writer."""

import json
from pathlib import Path
from typing import Any

from editing.checkpoint import Checkpoint
from editing.folder import save_tensors
from editing.plan import family_of
from editing.tying import KEY, embedding_name
from editing.weight_files import INDEX_NAME, SINGLE_NAME

FIRST, HEAD_FILE = "model-base.safetensors", "model-lm_head.safetensors"


def untie_head(checkpoint: Checkpoint, target: Path) -> None:
    """Untie config.json, and add the base's embedding as the head in a file of its own unless a spare copy is there."""
    family = family_of(checkpoint)
    if not any(name in checkpoint.tensors for name in family.heads):
        _add_head(checkpoint, target, family.heads[0])
    config = untied(json.loads((target / "config.json").read_text()))
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def untied(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that says, wherever it says it, that embedding and head are two matrices."""
    inner = config.get("text_config")
    nested = {"text_config": {**inner, KEY: False}} if isinstance(inner, dict) else {}
    return {**config, **nested, KEY: False}


def _add_head(checkpoint: Checkpoint, target: Path, name: str) -> None:
    """Write the head, and list every tensor in an index."""
    embedding = embedding_name(checkpoint, family_of(checkpoint))
    save_tensors(target / HEAD_FILE, {name: checkpoint.read(embedding).contiguous()}, {"format": "pt"})
    # transformers looks at model.safetensors before an index, so a single file gets another name.
    names = {SINGLE_NAME: FIRST}
    if (target / SINGLE_NAME).is_file():
        (target / SINGLE_NAME).rename(target / FIRST)
    weight_map = {tensor: names.get(entry.file.name, entry.file.name) for tensor, entry in checkpoint.tensors.items()}
    weight_map[name] = HEAD_FILE
    head = checkpoint.tensors[embedding]
    total = sum(entry.end - entry.begin for entry in checkpoint.tensors.values()) + head.end - head.begin
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (target / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")
