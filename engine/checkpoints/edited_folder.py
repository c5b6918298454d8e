"""Which folder a record is of, without reading its weights: asked before anything heavy is imported."""

from pathlib import Path

from editing.folder import EDIT_FILE
from engine.errors import EngineError


def folder_of(given: Path) -> Path:
    """The edited folder of a card or a folder. Raises EngineError where no record stands there."""
    folder = given.parent if given.is_file() else given
    if not folder.is_dir():
        raise EngineError(f"{given} does not exist. Give a folder that bin/edit wrote, or its README.md.")
    if not (folder / EDIT_FILE).is_file():
        raise EngineError(
            f"{given} has no record: there is no {EDIT_FILE} in {folder}. Only what bin/edit wrote, with its record, is replayed."
        )
    return folder
