"""A checkpoint or adapter of others as a variant of its base."""

from pathlib import Path

from editing.adapter import CONFIG_FILE, WEIGHTS_FILE
from editing.checkpoint import Checkpoint, open_checkpoint
from editing.plan import EditPlan
from editing.replacement import replacement_of
from engine.errors import EngineError
from engine.models.locate import checkpoint_hash
from engine.models.variant import Variant
from engine.paths import file_hash, hash_of, user_path


def replaced(name: str, directory: str, base: Checkpoint, base_hash: str, plan: EditPlan) -> Variant:
    """The folder as a variant of `base`, known by the hash of its weights; everything that differs is looked for.

    Raises EngineError where there is no such folder, EditError for one of another architecture or base.
    """
    folder = user_path(directory).resolve()
    if not folder.is_dir():
        raise EngineError(f"Checkpoint folder {directory} does not exist. Give a folder with safetensors, or a LoRA's.")
    return Variant(name, base_hash, plan, None, None, replacement_of(folder, base), contents_of(folder))


def contents_of(folder: Path) -> str:
    """The hash of a folder's weights: a checkpoint's identity, or that of an adapter's two files."""
    if (folder / CONFIG_FILE).is_file():
        return hash_of({name: file_hash(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)})
    return checkpoint_hash(open_checkpoint(folder))
