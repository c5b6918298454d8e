"""Tasks by name: this project's own, lm-eval's stock, and the user's folder; data from local files where no hub is reached."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import EngineError

OWN = Path(__file__).parent / "tasks"
EVERYDAY = "everyday"
BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
Task = Any


def load_tasks(names: Sequence[str], include: Path | None, data: Mapping[str, Path]) -> dict[str, Task]:
    """lm-eval tasks by name. `data` names a local file that takes the place of a task's data set.

    Raises EngineError for an unknown name (with the nearest), for a data set that cannot be had (with the file to give), and for
    a task without documents.
    """
    from lm_eval.tasks import TaskManager

    stock = [name for name in names if name != EVERYDAY]
    # Indexing the stock tasks takes seconds; the own task needs none of them.
    manager = TaskManager(include_path=str(include) if include else None, include_defaults=bool(stock))
    if unknown := [name for name in stock if name not in manager.all_tasks]:
        near = difflib.get_close_matches(unknown[0], [EVERYDAY, *manager.all_tasks], n=3)
        raise EngineError(
            f"lm-eval has no task '{unknown[0]}'. " + (f"Nearest: {', '.join(near)}." if near else "See lm-eval ls tasks.")
        )
    if strangers := sorted(set(data) - set(names)):
        raise EngineError(f"--data names {strangers[0]}, which is not among the tasks: {', '.join(names)}.")
    tasks: dict[str, Task] = {}
    for name in names:
        tasks |= _load(manager, name, data.get(name))
    for name, task in tasks.items():
        if not len(task.eval_docs):
            raise EngineError(f"Task {name} has no documents to evaluate on.")
    return tasks


def _load(manager: Any, name: str, file: Path | None) -> dict[str, Task]:
    try:
        return dict(manager.load([_own_config() if name == EVERYDAY else _with_data(name, file)])["tasks"])
    except (OSError, ValueError, RuntimeError) as error:  # datasets' errors for what it cannot fetch or read
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise EngineError(
            f"Task {name} takes its data set, which could not be had ({reason}). Give a local copy with "
            f"--data {name}=FILE ({', '.join(BUILDERS)}, with the data set's columns)."
        ) from error


def _own_config() -> dict[str, Any]:
    import yaml

    config = dict(yaml.safe_load((OWN / f"{EVERYDAY}.yaml").read_text()))
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"] = {"data_files": {split: str(OWN / file) for split, file in files.items()}}
    return config


def _with_data(name: str, file: Path | None) -> Any:
    """The task's name, or its configuration with a local file in place of its data set."""
    if file is None:
        return name
    if not file.is_file() or file.suffix not in BUILDERS:
        raise EngineError(f"--data {name}={file}: expected a file that ends in {', '.join(BUILDERS)}.")
    return {
        "task": name,
        "dataset_path": BUILDERS[file.suffix],
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"train": str(file), "validation": str(file), "test": str(file)}},
    }
