"""Local files in the place of a stock task's data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.lmeval.bigbench import HUB_NAME, read_bigbench
from engine.lmeval.saved_data import saved_overrides, saved_splits

BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
EVALUATED = "test"  # the split that a single file becomes


def with_data(name: str, stock: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """A configuration for lm-eval's task `name`: its own one (`stock`) with `data` in the place of its documents."""
    from datasets import Dataset

    if not data.exists():
        raise EngineError(f"--data {name}={data}: there is no such file.")
    if stock.get("dataset_path") == HUB_NAME and data.suffix == ".json":
        rows = read_bigbench(data)
        return _in_a_group(name, {"custom_dataset": lambda **_: {EVALUATED: Dataset.from_list(rows)}}, stock, alone=True)
    if data.is_dir() and (saved := saved_splits(data)):
        return _in_a_group(name, saved_overrides(name, stock, saved), stock, alone=False)
    files = sorted(file for file in data.iterdir() if file.suffix in BUILDERS) if data.is_dir() else [data]
    kinds = {BUILDERS.get(file.suffix) for file in files if file.is_file()}
    if len(kinds) != 1 or None in kinds:
        raise EngineError(
            f"--data {name}={data}: expected a file that ends in {', '.join(BUILDERS)}, a folder of one kind of them, or "
            "one that datasets saved (save_to_disk)."
        )
    splits = {file.stem: str(file) for file in files} if data.is_dir() else {EVALUATED: str(data)}
    overrides = {"dataset_path": kinds.pop(), "dataset_name": None, "dataset_kwargs": {"data_files": splits}}
    return _in_a_group(name, overrides, stock, alone=not data.is_dir())


def _in_a_group(name: str, overrides: Mapping[str, Any], stock: Mapping[str, Any], *, alone: bool) -> dict[str, Any]:
    """lm-eval merges a stock task with other values inside a group; `alone` for documents that are all in one split."""
    task = {"task": name, **overrides}
    if alone:
        task |= {"training_split": None, "validation_split": None, "test_split": EVALUATED}
        if "samples" not in (stock.get("fewshot_config") or {}):
            task["fewshot_split"] = EVALUATED  # the same as the test split: lm-eval leaves the question itself out
    return {"group": "local files", "task": [task]}
