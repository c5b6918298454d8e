"""Tasks by name: this project's own, lm-eval's stock, and the user's folder; data from local files where no hub is reached."""

import difflib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.lmeval.bigbench import HUB_NAME, read_bigbench

OWN = Path(__file__).parent / "tasks"
EVERYDAY = "everyday"
BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
EVALUATED = "test"  # the split that a single file becomes
Task = Any


def load_tasks(names: Sequence[str], include: Path | None, data: Mapping[str, Path]) -> dict[str, Task]:
    """lm-eval tasks by name, those of groups and tags included.

    `data` gives what takes the place of a task's data set: a file of the documents to evaluate on, of which the examples before
    a question are others; or a folder with a file for each split, named as the task names it. Raises EngineError for an unknown
    name (with the nearest), for a data set that cannot be had (with what to give), and for a task without documents.
    """
    stock = [name for name in names if name != EVERYDAY]
    manager = _index(include, with_stock=bool(stock))
    if unknown := [name for name in stock if name not in manager.all_tasks]:
        near = difflib.get_close_matches(unknown[0], [EVERYDAY, *manager.all_tasks], n=3)
        raise EngineError(
            f"lm-eval has no task '{unknown[0]}'. " + (f"Nearest: {', '.join(near)}." if near else "See lm-eval ls tasks.")
        )
    for name in data:
        _check_takes_data(manager, name, names)
    tasks: dict[str, Task] = {}
    for name in names:
        tasks |= _load(manager, name, data.get(name))
    return tasks


@functools.cache
def _index(include: Path | None, *, with_stock: bool) -> Any:
    """lm-eval's tasks by name; indexing its stock takes seconds, which the own task does without."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(include) if include else None, include_defaults=with_stock)


def _check_takes_data(manager: Any, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise EngineError(f"--data names {name}, which is not among the tasks: {', '.join(names)}.")
    if name == EVERYDAY:
        raise EngineError(f"{EVERYDAY} brings its own documents; leave --data out for it.")
    kind = manager.task_index[name].kind.name
    if kind == "PY_TASK":
        raise EngineError(f"Task {name} reads its data by code of its own, so --data cannot take their place.")
    if kind != "TASK":
        raise EngineError(
            f"{name} is several tasks, each with documents of its own: give --tasks and --data those that you have."
        )


def check_few_shot(tasks: Mapping[str, Task], num_fewshot: int | None) -> None:
    """Raise EngineError where a task has too few documents to show so many of them before a question."""
    for name, task in tasks.items():
        if num_fewshot and (there := len(list(task.fewshot_docs() or []))) <= num_fewshot:
            raise EngineError(f"Task {name} has {there} documents to take examples from; --num-fewshot asks for {num_fewshot}.")


def _load(manager: Any, name: str, data: Path | None) -> dict[str, Task]:
    """A name's tasks. lm-eval tries each on its first document, with the task's own code: whatever that raises is the data's."""
    spec = _with_data(manager, name, data) if data else _own_config() if name == EVERYDAY else name
    try:
        found = dict(manager.load([spec])["tasks"])
    except Exception as error:
        if isinstance(error, StopIteration) or "out of bounds for size 0" in str(error):
            raise EngineError(f"Task {name} has no documents to evaluate on{f' in {data}' if data else ''}.") from None
        reason = f"{type(error).__name__}: {' '.join(str(error.__cause__ or error).split())[:200]}"
        if data:
            raise EngineError(
                f"Task {name} cannot use {data} ({reason}). Expected the columns of the task's own data set; in a folder, a file "
                "for each split that the task names."
            ) from error
        one = name == EVERYDAY or manager.task_index[name].kind.name == "TASK"
        copy = (
            f"a local copy with --data {name}=FILE"
            if one
            else "those of its tasks that you have by name, each with --data TASK=FILE"
        )
        raise EngineError(
            f"Task {name} takes its data set, which could not be had ({reason}). Give {copy} ({', '.join(BUILDERS)}, with the "
            "data set's columns)."
        ) from error
    return found


def _own_config() -> dict[str, Any]:
    import yaml

    config = dict(yaml.safe_load((OWN / f"{EVERYDAY}.yaml").read_text()))
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"] = {"data_files": {split: str(OWN / file) for split, file in files.items()}}
    return config


def _with_data(manager: Any, name: str, data: Path) -> dict[str, Any]:
    """The task's configuration with local files in place of its data set."""
    from datasets import Dataset

    if not data.exists():
        raise EngineError(f"--data {name}={data}: there is no such file.")
    stock = manager.task_index[name].cfg
    if stock.get("dataset_path") == HUB_NAME and data.suffix == ".json":
        rows = read_bigbench(data)
        return _in_a_group(name, {"custom_dataset": lambda **_: {EVALUATED: Dataset.from_list(rows)}}, stock, alone=True)
    files = sorted(file for file in data.iterdir() if file.suffix in BUILDERS) if data.is_dir() else [data]
    kinds = {BUILDERS.get(file.suffix) for file in files if file.is_file()}
    if len(kinds) != 1 or None in kinds:
        raise EngineError(
            f"--data {name}={data}: expected a file that ends in {', '.join(BUILDERS)}, or a folder of one kind of them."
        )
    splits = {file.stem: str(file) for file in files} if data.is_dir() else {EVALUATED: str(data)}
    files_alone = {"dataset_path": kinds.pop(), "dataset_name": None, "dataset_kwargs": {"data_files": splits}}
    return _in_a_group(name, files_alone, stock, alone=not data.is_dir())


def _in_a_group(name: str, overrides: Mapping[str, Any], stock: Mapping[str, Any], *, alone: bool) -> dict[str, Any]:
    """lm-eval merges a stock task with other values inside a group; `alone` for documents that are all in one split."""
    task = {"task": name, **overrides}
    if alone:
        task |= {"training_split": None, "validation_split": None, "test_split": EVALUATED}
        if "samples" not in (stock.get("fewshot_config") or {}):
            task["fewshot_split"] = EVALUATED  # the same as the test split: lm-eval leaves the question itself out
    return {"group": "local files", "task": [task]}
