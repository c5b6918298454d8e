"""The rules in processes of their own: the judge's own grades, and no process left over when the parent is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from engine.evaluate.rules import PoolRules
from judging.judgement import Item
from judging.offline import OfflineJudge

TEXTS = ["I'm sorry, but I can't see your pocket.", "The key is on the table by the door.", "and and and and and"]
ITEMS = [Item("Where is my key?", text) for text in TEXTS]


@pytest.fixture(scope="module")
def rules() -> Iterator[PoolRules]:
    pool = PoolRules(1)
    yield pool
    pool.close()


def test_processes_grade_as_the_judge_grades(rules: PoolRules) -> None:
    judge = OfflineJudge()
    assert rules.start(ITEMS, None)().judgements == [judge.score(item.prompt, item.response) for item in ITEMS]


def test_a_process_tells_its_seconds(rules: PoolRules) -> None:
    assert rules.start(ITEMS, None)().seconds > 0


def test_no_process_outlives_a_killed_parent() -> None:
    code = (
        "import time; from tests.engine.evaluate.test_rules import ITEMS, PoolRules\n"
        "if __name__ == '__main__':\n    PoolRules(1).start(ITEMS, None)(); print('there', flush=True); time.sleep(60)"
    )
    script = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert script.stdout is not None and script.stdout.readline() == "there\n"
    children = psutil.Process(script.pid).children(recursive=True)
    os.kill(script.pid, signal.SIGKILL)
    script.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
