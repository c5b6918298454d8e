"""Commands on other people's work at the command line: bad input gets one message and exit status 2, and nothing is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def command(cwd: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"engine.commands.{module}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / "hub")}
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("compare", ["smollm2_135m_k1", "nowhere"], "Checkpoint folder nowhere does not exist"),
        ("replay", ["."], "has no record: there is no edit.json"),
        ("replay", [".", "--pairs", "pairs.csv"], "--pairs is read with --from-data alone"),
        ("reproduce", ["llama32_3b_subspaces"], "None of the models of 'Llama-3.2-3B: layers and subspaces' is at hand"),
        ("export", [".", "--to", "csv", "--out", "rows.csv"], "is not a run directory"),
        ("sideeffects", ["--variant", "smollm2_135m_k1", "--margin", "2"], "--margin takes a share between 0 and 1"),
    ],
)
@pytest.mark.usefixtures("smollm2_dir")
def test_bad_input_is_one_message(tmp_path: Path, module: str, arguments: list[str], message: str) -> None:
    done = command(tmp_path, module, *arguments)
    assert (done.returncode, done.stdout, message in done.stderr) == (2, "", True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_tables_are_listed_with_what_is_at_hand(tmp_path: Path) -> None:
    done = command(tmp_path, "reproduce", "--format", "csv")
    listed = [line.split(",")[0] for line in done.stdout.splitlines()[1:]]
    assert listed == ["across_models", "arditi", "llama32_1b_subspaces", "llama32_3b_subspaces", "smollm2_135m"]
