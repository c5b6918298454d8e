"""Tasks by name: this project's own, lm-eval's stock, and the user's folder; data from local files where no hub is reached."""

import difflib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.display.progress import say
from engine.errors import EngineError
from engine.lmeval.local_data import BUILDERS, with_data

OWN = Path(__file__).parent / "tasks"
EVERYDAY = "everyday"
YAML = (".yaml", ".yml")
Task = Any


def load_tasks(names: Sequence[str], include: Path | None, data: Mapping[str, Path]) -> dict[str, Task]:
    """lm-eval tasks by name, those of groups and tags included; mmlu_* and a task's YAML file are names too.

    `data` gives what takes the place of a task's data set: a file of the documents to evaluate on, of which the examples before
    a question are others; or a folder with a file for each split, named as the task names it. Raises EngineError for an unknown
    name (with the nearest), for a data set that cannot be had (with what to give), and for a task without documents.
    """
    if include is not None and not include.is_dir():
        raise EngineError(f"--include-path {include}: there is no such folder.")
    manager = _index(include, with_stock=any(name != EVERYDAY for name in names))
    names = [found for name in names for found in _found(manager, name, include)]
    for name in data:
        _check_takes_data(manager, name, names)
    tasks: dict[str, Task] = {}
    for name in names:
        tasks |= _load(manager, name, data.get(name))
    return tasks


def check_few_shot(tasks: Mapping[str, Task], num_fewshot: int | None) -> None:
    """Raise EngineError where a task has too few documents to show as many of them before a question as it is to."""
    for name, task in tasks.items():
        own = task.get_config("num_fewshot")
        if own == 0 and num_fewshot:
            say(f"bench: {name} is asked without examples: its configuration says so, and lm-eval keeps to that")
        wanted = own if own == 0 or num_fewshot is None else num_fewshot
        there = len(list(task.fewshot_docs() or [])) if wanted else 0
        split = task.get_config("fewshot_split")
        if wanted and there < wanted + (split is not None and split == task.get_config("test_split")):
            raise EngineError(
                f"Task {name} has {there} documents to take examples from; {wanted} are to stand before each question. "
                "Choose another --num-fewshot."
            )


@functools.cache
def _index(include: Path | None, *, with_stock: bool) -> Any:
    """lm-eval's tasks by name; indexing its stock takes seconds, which the own task does without."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(include) if include else None, include_defaults=with_stock)


def _found(manager: Any, name: str, include: Path | None) -> list[str]:
    """The names that a name stands for: itself, what a pattern matches, a YAML file."""
    if name in manager.all_tasks or name == EVERYDAY:
        return [name]
    if name.endswith(YAML) and Path(name).is_file():
        return [str(Path(name).absolute())]
    if matching := manager.match_tasks([name]) if "*" in name else []:
        return list(matching)
    near = difflib.get_close_matches(name, [EVERYDAY, *manager.all_tasks], n=3)
    where = f" nor has {include}, as far as lm-eval can read it" if include else ""
    nearest = f"Nearest: {', '.join(near)}." if near else "See lm-eval ls tasks."
    raise EngineError(f"lm-eval has no task '{name}'{where}. {nearest}")


def _check_takes_data(manager: Any, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise EngineError(f"--data names {name}, which is not among the tasks: {', '.join(names)}.")
    if name not in manager.task_index:
        raise EngineError(f"{name} names its documents itself; leave --data out for it.")
    kind = manager.task_index[name].kind.name
    if kind == "PY_TASK":
        raise EngineError(f"Task {name} reads its data by code of its own, so --data cannot take their place.")
    if kind != "TASK":
        raise EngineError(
            f"{name} is several tasks, each with documents of its own: give --tasks and --data those that you have."
        )


def _load(manager: Any, name: str, data: Path | None) -> dict[str, Task]:
    """A name's tasks. lm-eval tries each on its first document, with the task's own code, which may raise anything."""
    spec: Any = _own_config() if name == EVERYDAY and name not in manager.task_index else name
    if data is not None:
        spec = with_data(name, manager.task_index[name].cfg, data)
    try:
        return dict(manager.load([spec])["tasks"])
    except Exception as error:
        if isinstance(error, StopIteration) or "out of bounds for size 0" in str(error):
            raise EngineError(f"Task {name} has no documents to evaluate on{f' in {data}' if data else ''}.") from None
        reason = f"{type(error).__name__}: {' '.join(str(error.__cause__ or error).split())[:200]}"
        if data:
            raise EngineError(
                f"Task {name} cannot use {data} ({reason}). Expected the columns of the task's own data set; in a folder, a file "
                "for each split that the task names."
            ) from error
        if not isinstance(error, OSError):
            raise EngineError(f"Task {name} cannot be set up ({reason}).") from error
        raise EngineError(
            f"Task {name} takes its data set, which could not be had ({reason}). {_copy_of(manager, name)} "
            f"({', '.join(BUILDERS)}, with the data set's columns)."
        ) from error


def _copy_of(manager: Any, name: str) -> str:
    entry = manager.task_index.get(name)
    if entry is None or entry.kind.name == "TASK":
        return f"Give a local copy with --data {name}=FILE"
    return "Give those of its tasks that you have by name, each with --data TASK=FILE"


def _own_config() -> dict[str, Any]:
    import yaml

    config = dict(yaml.safe_load((OWN / f"{EVERYDAY}.yaml").read_text()))
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"] = {"data_files": {split: str(OWN / file) for split, file in files.items()}}
    return config
