"""Folders that `datasets` saved in the place of a task's data set: as they are, and of that task alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.lmeval.catalogue import load_tasks

ARC = "arc_easy"
SHOTS = 2


def rows(count: int) -> list[dict[str, Any]]:
    choices = {"text": ["red", "green", "blue"], "label": ["A", "B", "C"]}
    names = ("stone", "leaf", "cup", "door", "boat", "lamp")
    return [
        {"id": str(place), "question": f"What colour is the {name}?", "choices": choices, "answerKey": "ABC"[place % 3]}
        for place, name in enumerate(names[:count])
    ]


def save(folder: Path, count: int, split: str, *, dataset: str | None = "ai2_arc", part: str | None = "ARC-Easy") -> Path:
    """What `save_to_disk` writes, with the names that a hub's data set has."""
    from datasets import Dataset

    Dataset.from_list(rows(count)).save_to_disk(str(folder))
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"dataset_name": dataset, "config_name": part}))
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_split": split}))
    return folder


def loaded(data: Path, task: str = ARC) -> Any:
    return load_tasks([task], None, {task: data})[task]


def test_a_saved_split_is_taken_as_it_is(tmp_path: Path) -> None:
    task = loaded(save(tmp_path / "validation", 6, "validation"))
    assert [document["question"] for document in task.eval_docs] == [row["question"] for row in rows(6)]


def test_a_folder_of_splits_is_taken(tmp_path: Path) -> None:
    save(tmp_path / "ARC-Easy" / "validation", 5, "validation")
    assert len(loaded(tmp_path / "ARC-Easy").eval_docs) == 5


def test_the_tasks_own_test_split_goes_before_its_validation_split(tmp_path: Path) -> None:
    save(tmp_path / "ARC-Easy" / "validation", 5, "validation")
    save(tmp_path / "ARC-Easy" / "test", 3, "test")
    assert len(loaded(tmp_path / "ARC-Easy").eval_docs) == 3


def test_examples_come_from_the_training_split_where_it_is_there(tmp_path: Path) -> None:
    save(tmp_path / "ARC-Easy" / "validation", 2, "validation")
    save(tmp_path / "ARC-Easy" / "train", 4, "train")
    assert len(list(loaded(tmp_path / "ARC-Easy").fewshot_docs())) == 4


def test_no_question_of_a_lone_split_is_among_its_own_examples(tmp_path: Path) -> None:
    task = loaded(save(tmp_path / "validation", 4, "validation"))
    task.set_fewshot_seed(1234)
    document = next(iter(task.eval_docs))
    assert task.fewshot_context(document, SHOTS).count(document["question"]) == 1


@pytest.mark.parametrize(("dataset", "part"), [("ai2_arc", "ARC-Challenge"), ("hellaswag", "default")])
def test_another_tasks_folder_is_refused_by_name(tmp_path: Path, dataset: str, part: str) -> None:
    folder = save(tmp_path / "validation", 3, "validation", dataset=dataset, part=part)
    with pytest.raises(EngineError, match=f"holds {dataset} {part}; task arc_easy takes ai2_arc ARC-Easy"):
        loaded(folder)


def test_a_split_that_the_task_does_not_evaluate_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "train", 3, "train")
    with pytest.raises(EngineError, match="arc_easy is evaluated on test or validation; the folder holds train"):
        loaded(folder)


def test_a_damaged_folder_is_one_message(tmp_path: Path) -> None:
    folder = save(tmp_path / "validation", 3, "validation")
    for file in folder.glob("*.arrow"):
        file.write_bytes(b"no arrow")
    with pytest.raises(EngineError, match="cannot be read as a saved data set"):
        loaded(folder)


def test_columns_of_another_task_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "validation", 3, "validation", dataset=None, part=None)
    with pytest.raises(EngineError, match="Task piqa cannot use"):
        loaded(folder, "piqa")
