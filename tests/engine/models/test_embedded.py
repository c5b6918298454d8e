"""The embedded model's folder: made once, whoever asks first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ASK = "from engine.models.embedded import embedded_model; print(embedded_model())"


@pytest.mark.slow
def test_of_two_first_commands_one_converts_the_model_and_both_have_it(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "REFUSAL_ROLLOUT_CACHE": str(tmp_path)}
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", ASK], **options) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("converting" in errors for _, errors in said) == 1
