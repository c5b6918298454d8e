"""Commands on other people's work at the command line: bad input gets one message and exit status 2, and nothing is written."""

import subprocess
from pathlib import Path

import pytest

from tests.commands import ran


def command(cwd: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ran(module, *arguments, cwd=cwd)


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
