"""The one reader of a run's own JSON files: damage is one message that names the file and the command's way out."""

from pathlib import Path
from typing import Any

from editing.errors import EditError
from editing.reading import read_object
from engine.errors import EngineError

AGAIN = "Remove it and run the same command again: the rest is kept."


def read_json(path: Path, advice: str = AGAIN) -> dict[str, Any]:
    """The object of a JSON file. Raises EngineError, which ends in `advice`, for a damaged one."""
    try:
        return read_object(path, advice)
    except EditError as error:
        raise EngineError(str(error)) from error
