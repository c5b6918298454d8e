"""Folders that `datasets` saved (`save_to_disk`), as packages carry them, in the place of a stock task's data set.

One is a split (state.json, dataset_info.json, *.arrow), or a folder with one folder a split. What such a folder says of itself
is compared with the task: ARC-Easy and ARC-Challenge have the same columns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editing.errors import EditError
from editing.reading import read_object
from engine.display.progress import say
from engine.errors import EngineError

STATE, INFO = "state.json", "dataset_info.json"
UNSAID = ("default", "none", "plain_text")  # configurations that name no part of a data set
AGAIN = "Copy the folder again."


def saved_splits(folder: Path) -> dict[str, Path]:
    """The saved splits of a folder, by name; none where it is no such folder."""
    found = [folder] if (folder / STATE).is_file() else sorted(part.parent for part in folder.glob(f"*/{STATE}"))
    return {_split_of(part): part for part in found}


def saved_overrides(name: str, stock: Mapping[str, Any], splits: Mapping[str, Path]) -> dict[str, Any]:
    """The keys with which lm-eval's task takes saved splits: its documents, and which split is evaluated.

    Raises EngineError for splits of another data set, for none that the task evaluates, and for damaged files.
    """
    for folder in splits.values():
        _check_task(name, stock, folder)
    loaded = {split: _load(folder) for split, folder in splits.items()}
    wanted = [split for key in ("test_split", "validation_split") if (split := stock.get(key)) is not None]
    evaluated = next((split for split in wanted if split in loaded), None)
    if evaluated is None:
        raise EngineError(f"Task {name} is evaluated on {' or '.join(wanted)}; the folder holds {', '.join(loaded)}.")
    if evaluated != wanted[0]:
        say(f"bench: {name} is scored on its {evaluated} split: the folder has no {wanted[0]}")
    shown = stock.get("training_split")
    return {
        "custom_dataset": lambda **_: loaded,
        "training_split": shown if shown in loaded else None,
        "validation_split": None,
        "test_split": evaluated,
        "fewshot_split": shown if shown in loaded else evaluated,
    }


def _split_of(folder: Path) -> str:
    state = _read(folder / STATE)
    return str(state.get("_split") or folder.name)


def _load(folder: Path) -> Any:
    from datasets import Dataset

    try:
        return Dataset.load_from_disk(str(folder))
    except Exception as error:  # pyarrow, datasets and the file system each raise their own
        said = " ".join(str(error).split())[:200]
        raise EngineError(f"{folder} cannot be read as a saved data set ({type(error).__name__}: {said}). {AGAIN}") from error


def _check_task(name: str, stock: Mapping[str, Any], folder: Path) -> None:
    """Raise EngineError where a folder says that it is of another data set, or of another part of it."""
    info = _read(folder / INFO) if (folder / INFO).is_file() else {}
    said, part = info.get("dataset_name"), info.get("config_name")
    wanted = str(stock.get("dataset_path", "")).rpartition("/")[2]
    wanted_part = stock.get("dataset_name")
    other = said is not None and said != wanted
    other_part = wanted_part is not None and part is not None and part not in UNSAID and part != wanted_part
    if other or other_part:
        raise EngineError(
            f"{folder} holds {' '.join(str(one) for one in (said, part) if one)}; task {name} takes {wanted}"
            f"{f' {wanted_part}' if wanted_part else ''}. Give that one with --data {name}=FOLDER."
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_object(file, AGAIN)
    except EditError as error:
        raise EngineError(str(error)) from error
