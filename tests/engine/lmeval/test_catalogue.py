"""Tasks by name, and local files in the place of data sets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.lmeval.bench import check_limit
from engine.lmeval.catalogue import OWN, check_few_shot, load_tasks

ARC = "arc_easy"
BIGBENCH = "bigbench_general_knowledge_multiple_choice"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def arc_rows(count: int, word: str = "thing") -> list[dict[str, Any]]:
    choices = {"text": ["red", "green", "blue"], "label": ["A", "B", "C"]}
    return [
        {"id": str(i), "question": f"What colour is {word} {i}?", "choices": choices, "answerKey": "ABC"[i % 3]}
        for i in range(count)
    ]


def test_the_shipped_task_is_a_hundred_questions_and_needs_no_hub() -> None:
    rows = [json.loads(line) for line in (OWN / "everyday.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["question"] for row in rows}) == 100
    assert all(len(set(row["choices"])) == 4 and 0 <= row["answer"] < 4 for row in rows)
    counts = np.bincount([row["answer"] for row in rows])
    print("right answers by place:", counts)
    assert counts.max() <= 35
    tasks = load_tasks(["everyday"], None, {})
    assert len(tasks["everyday"].eval_docs) == 100
    with pytest.raises(EngineError, match=r"Task everyday has 100 documents; --limit asks for 101"):
        check_limit(tasks, 101)
    with pytest.raises(EngineError, match=r"Task everyday has 100 documents to take examples from; 100 are to stand before"):
        check_few_shot(tasks, 100)


def test_no_question_is_among_its_own_examples(tmp_path: Path) -> None:
    """A task whose documents are all in one split would else show the answer that it asks for."""
    file = write_lines(tmp_path / "arc.jsonl", arc_rows(4))
    tasks = load_tasks(["everyday", ARC], None, {ARC: file})
    for name, shots in (("everyday", 60), (ARC, 3)):
        task = tasks[name]
        task.set_fewshot_seed(1234)
        for document in list(task.eval_docs)[:20]:
            prompt = task.fewshot_context(document, shots)
            assert prompt.count("Question: ") == shots + 1
            assert prompt.count(task.doc_to_text(document)) == 1, prompt


def test_a_stock_task_keeps_its_questions_form_and_takes_its_documents_from_a_file(tmp_path: Path) -> None:
    task = load_tasks([ARC], None, {ARC: write_lines(tmp_path / "arc.jsonl", arc_rows(5))})[ARC]
    document = task.eval_docs[4]
    assert len(task.eval_docs) == 5 and task.doc_to_text(document) == "Question: What colour is thing 4?\nAnswer:"
    assert (task.doc_to_choice(document), task.doc_to_target(document)) == (["red", "green", "blue"], 1)


def test_a_folder_has_a_file_for_each_split_that_the_task_names(tmp_path: Path) -> None:
    for split, count in (("train", 7), ("validation", 3), ("test", 5)):
        write_lines(tmp_path / f"{split}.jsonl", arc_rows(count, split))
    task = load_tasks([ARC], None, {ARC: tmp_path})[ARC]
    assert len(task.eval_docs) == 5
    assert {row["question"].split()[3] for row in task.fewshot_docs()} == {"train"}
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(EngineError, match=r"cannot use .*KeyError: 'train'.*a file for each split that the task names"):
        load_tasks([ARC], None, {ARC: tmp_path})


def test_big_benchs_own_file_becomes_the_columns_that_lm_eval_reads(tmp_path: Path) -> None:
    examples = [
        {"input": f"How many legs has {name}?", "target_scores": {"two": 0, "four": 1, "six": 0}} for name in ("a cat", "a cow")
    ]
    file = tmp_path / "task.json"
    file.write_text(json.dumps({"name": "legs", "examples": examples}))
    task = load_tasks([BIGBENCH], None, {BIGBENCH: file})[BIGBENCH]
    first = task.eval_docs[0]
    asked, *shown, answer = task.doc_to_text(first).split("\n")
    assert (asked, answer, sorted(shown)) == (
        "Q: How many legs has a cat?",
        "A:",
        ["  choice: four", "  choice: six", "  choice: two"],
    )
    assert (task.doc_to_choice(first), task.doc_to_target(first)) == (["two", "four", "six"], 1)
    plain = {
        "example_input_prefix": "",
        "example_output_prefix": " =",
        "append_choices_to_input": False,
        "task_prefix": "Count. ",
    }
    file.write_text(json.dumps({**plain, "examples": examples}))
    task = load_tasks([BIGBENCH], None, {BIGBENCH: file})[BIGBENCH]
    assert task.doc_to_text(task.eval_docs[1]) == "Count. How many legs has a cow? ="


def test_big_benchs_free_answers_are_read_too(tmp_path: Path) -> None:
    name = "bigbench_general_knowledge_generate_until"
    file = tmp_path / "task.json"
    file.write_text(json.dumps({"examples": [{"input": "Say A.", "target": ["A", "a"]}, {"input": "Say B.", "target": "B"}]}))
    task = load_tasks([name], None, {name: file})[name]
    assert [task.doc_to_target(document) for document in task.eval_docs] == ["A", "B"]


def test_examples_are_counted_where_they_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a split of their own as many as it has; from the evaluated split one fewer; the task's own number counts too."""
    for split, count in (("train", 5), ("validation", 3), ("test", 5)):
        write_lines(tmp_path / f"{split}.jsonl", arc_rows(count, split))
    apart = load_tasks([ARC], None, {ARC: tmp_path})
    check_few_shot(apart, 5)
    with pytest.raises(EngineError, match=r"arc_easy has 5 documents to take examples from; 6 are to stand"):
        check_few_shot(apart, 6)
    together = load_tasks([ARC], None, {ARC: tmp_path / "test.jsonl"})
    check_few_shot(together, 4)
    with pytest.raises(EngineError, match=r"arc_easy has 5 documents to take examples from; 5 are to stand"):
        check_few_shot(together, 5)
    together[ARC].set_config("num_fewshot", 7)
    with pytest.raises(EngineError, match=r"7 are to stand"):
        check_few_shot(together, None)
    together[ARC].set_config("num_fewshot", 0)
    check_few_shot(together, 5)
    assert "arc_easy is asked without examples" in capsys.readouterr().err


@pytest.mark.slow
def test_patterns_files_and_a_users_folder_name_tasks(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [{"q": "One?", "a": "1"}, {"q": "Two?", "a": "2"}])
    text = f"""task: NAME
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
"""
    for name in ("mine_a", "mine_b", "everyday"):
        (tmp_path / f"{name}.yaml").write_text(text.replace("NAME", name))
    assert set(load_tasks(["mine_*"], tmp_path, {})) == {"mine_a", "mine_b"}
    assert set(load_tasks([str(tmp_path / "mine_b.yaml")], None, {})) == {"mine_b"}
    assert len(load_tasks(["everyday"], tmp_path, {})["everyday"].eval_docs) == 2  # the user's own goes before ours
    (tmp_path / "broken.yaml").write_text(text.replace("NAME", "broken").replace("{{q}}", "{{q"))
    with pytest.raises(EngineError, match=r"broken.yaml cannot be set up \(TemplateSyntaxError"):
        load_tasks([str(tmp_path / "broken.yaml")], None, {})
    with pytest.raises(EngineError, match=r"--include-path .*nowhere: there is no such folder"):
        load_tasks(["everyday"], tmp_path / "nowhere", {})
    with pytest.raises(EngineError, match=r"lm-eval has no task 'nothing_\*'"):
        load_tasks(["nothing_*"], None, {})


@pytest.mark.parametrize(
    ("task", "name", "text", "message"),
    [
        (ARC, "arc.jsonl", "", r"Task arc_easy has no documents to evaluate on in .*arc.jsonl"),
        (ARC, "arc.jsonl", '{"question": "x"}\n', r"Task arc_easy cannot use .*'choices' is undefined.*Expected the columns"),
        (ARC, "arc.jsonl", "not JSON\n", r"Task arc_easy cannot use .*JSON parse error"),
        (ARC, "arc.txt", "x", r"expected a file that ends in .jsonl, .json, .csv"),
        ("squadv2", "x.jsonl", "{}", r"Task squadv2 reads its data by code of its own"),
        ("ai2_arc", "x.jsonl", "{}", r"ai2_arc is several tasks, each with documents of its own"),
        ("everyday", "x.jsonl", "{}", r"everyday names its documents itself"),
        (BIGBENCH, "task.json", '{"examples": [{"input": "x", "target": "y"}]}', r"has no documents to evaluate on"),
        (BIGBENCH, "task.json", '{"examples": [{"input": "x"}]}', r"is no task of BIG-bench \(KeyError: 'target'\)"),
        (BIGBENCH, "task.json", "[]", r"is no task of BIG-bench"),
        (BIGBENCH, "task.json", '{"examples": []}', r"has no documents to evaluate on"),
    ],
)
def test_a_file_that_will_not_do_is_named_with_the_reason(task: str, name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(EngineError, match=message):
        load_tasks([task], None, {task: tmp_path / name})


def test_a_name_that_is_none_and_a_data_set_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"lm-eval has no task 'arc_eazy'. Nearest: arc_easy"):
        load_tasks(["arc_eazy"], None, {})
    with pytest.raises(EngineError, match=r"Task arc_easy takes .*could not be had.*--data arc_easy=FILE"):
        load_tasks([ARC], None, {})
    with pytest.raises(
        EngineError, match=r"could not be had.*those of its tasks that you have by name, each with --data TASK=FILE"
    ):
        load_tasks(["ai2_arc"], None, {})
    with pytest.raises(EngineError, match=r"--data arc_easy=.*nowhere.jsonl: there is no such file"):
        load_tasks([ARC], None, {ARC: tmp_path / "nowhere.jsonl"})
    with pytest.raises(EngineError, match=r"--data names arc_easy, which is not among the tasks"):
        load_tasks(["everyday"], None, {ARC: tmp_path})
