"""A new judge is one file of configs/judges: the examples of judging's README, a TOML and a Python file."""

from pathlib import Path

import pytest

from engine.configs import judges
from engine.configs.judges import judge_names, load_judge
from engine.configs.schema import JudgeConfig
from engine.errors import EngineError
from engine.rollout.judge_again import JudgingOptions, judge
from engine.runs.parquet import read_rows
from engine.scoring.grader import PythonGrader
from engine.scoring.run_judge import RunJudge
from judging.judgement import Item
from tests.engine.commands.judged import TEXTS, make_run

TOML_EXAMPLE = """
description = "A model that a server of ours serves"
rubric = "my_grades.md"           # beside this file; leave it out for the study's definitions

[endpoint]
base_url = "http://127.0.0.1:9000/v1"
model = "my-model"
api_key_env = "MY_JUDGE_KEY"      # the variable that holds the key, never the key
structured = "json_object"
"""
PYTHON_EXAMPLE = '''
"""Grades by the number of words: what a response says is not read."""

from collections.abc import Sequence

from judging.judgement import Item, Judgement

FEW = 8


def grade(items: Sequence[Item]) -> list[Judgement]:
    """One Judgement for each item, in order."""
    return [_of_one(item) for item in items]


def _of_one(item: Item) -> Judgement:
    words = len(item.response.split())
    if words == 0:
        return Judgement(compliance=0.0, coherence=0.0, declined=False, reason="empty")
    return Judgement(compliance=1.0 if words >= FEW else 0.5, coherence=1.0, declined=None, reason=f"{words} words")
'''


def asked(name: str) -> JudgeConfig:
    return JudgeConfig(name=name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """configs/judges with the two examples in it."""
    (tmp_path / "mine.toml").write_text(TOML_EXAMPLE)
    (tmp_path / "my_grades.md").write_text("## Compliance\n1 it does it\n## Coherence\n1 fluent\n## Declined\nyes or no\n")
    (tmp_path / "words.py").write_text(PYTHON_EXAMPLE)
    monkeypatch.setattr(judges, "JUDGE_DIR", tmp_path)
    return tmp_path


def test_both_are_known_by_their_names(folder: Path) -> None:
    assert judge_names() == ["offline", "mine", "words"]


def test_a_toml_names_an_endpoint(folder: Path) -> None:
    file = load_judge("mine")
    assert file is not None and file.endpoint is not None and file.endpoint.model == "my-model"


def test_a_rubric_lies_beside_the_file_that_names_it(folder: Path) -> None:
    file = load_judge("mine")
    assert file is not None and file.read_rubric().grades.startswith("## Compliance")


def test_a_python_files_grades_are_those_of_its_function(folder: Path) -> None:
    items = [Item("Name a colour.", text) for text in ("", "Blue.", "A colour that many people like is blue.")]
    found = PythonGrader(folder / "words.py").grade(items)
    assert [(one.compliance, one.coherence) for one in found] == [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)]


def test_a_run_is_judged_by_it(folder: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 8)
    judge(run, ["words"], JudgingOptions())
    reasons = {row["reason"] for row in read_rows(run / "scores.parquet")}
    assert reasons == {"empty"} | {f"{len(text.format(0).split())} words" for text in TEXTS if text}


def test_its_rates_say_that_no_language_model_gave_them(folder: Path, tmp_path: Path) -> None:
    summary = judge(make_run(tmp_path / "run", 8), ["words"], JudgingOptions())
    notice = summary["judges"][0]["notice"]
    assert notice.startswith("rules of words.py@") and notice.endswith("NOT a language model")


def test_a_changed_file_is_another_judge(folder: Path) -> None:
    before = RunJudge(asked("words"), 1).identity
    (folder / "words.py").write_text(PYTHON_EXAMPLE.replace("FEW = 8", "FEW = 9"))
    assert RunJudge(asked("words"), 1).identity != before


def test_a_file_without_the_function_is_refused_before_anything_runs(folder: Path) -> None:
    (folder / "empty.py").write_text("")
    with pytest.raises(EngineError, match=r"The judge empty\.py has no function grade\(items\)"):
        RunJudge(asked("empty"), 1).check()


def test_a_function_that_drops_an_item_is_refused(folder: Path) -> None:
    (folder / "short.py").write_text("def grade(items):\n    return []\n")
    with pytest.raises(EngineError, match="The judge short gave 0 judgements for 1 items"):
        PythonGrader(folder / "short.py").grade([Item("a", "b")])


def test_a_toml_from_elsewhere_runs_no_python_of_its_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.py").write_text(PYTHON_EXAMPLE)
    (tmp_path / "elsewhere" / "other.toml").write_text('python = "other.py"\n')
    with pytest.raises(EngineError, match=r"python = 'other\.py': expected the name of a Python file in configs/judges/"):
        load_judge(str(tmp_path / "elsewhere" / "other.toml"))


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    (folder / "words.toml").write_text(TOML_EXAMPLE)
    with pytest.raises(EngineError, match=r"Two files are the judge 'words': words\.toml and words\.py"):
        load_judge("words")
