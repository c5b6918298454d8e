"""The README of each package shows the very example that a test runs, and the top README the ten lines."""

import textwrap
from pathlib import Path

import pytest

from tests.editing import test_add_family
from tests.engine.commands import test_notebook
from tests.engine.study import test_add_study
from tests.extraction import test_add_estimator
from tests.judging import test_add_judge

ROOT = Path(__file__).parent.parent
SHOWN = {
    "editing family": ("editing", test_add_family.EXAMPLE),
    "extraction estimator": ("extraction", test_add_estimator.EXAMPLE),
    "judging TOML": ("judging", test_add_judge.TOML_EXAMPLE),
    "judging Python": ("judging", test_add_judge.PYTHON_EXAMPLE),
    "study": ("engine/study", test_add_study.EXAMPLE),
    "ten lines": (".", test_notebook.ten_lines()),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_readme_shows_what_a_test_runs(name: str) -> None:
    folder, example = SHOWN[name]
    assert textwrap.dedent(example).strip() in (ROOT / folder / "README.md").read_text()
