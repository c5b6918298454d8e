"""A server's key comes from the environment or a descriptor: never from a command line, which ps shows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.serving import checks

ROOT = Path(__file__).parents[3]


def given(data: bytes) -> str:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        return checks.read_key(reading)
    finally:
        os.close(reading)


def test_a_key_comes_from_a_descriptor() -> None:
    assert given(b"a-key\n") == "a-key"


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"two words", b"two\nlines", b"\xff\xfe", b"x" * (checks.MOST_KEY + 1), b"a\x1b[0m"]
)
def test_what_is_no_key_is_refused(data: bytes) -> None:
    with pytest.raises(EngineError, match="gives no key"):
        given(data)


def test_a_key_on_the_command_line_is_refused() -> None:
    command = [sys.executable, "-m", "engine.commands.serve", "--variant", "smollm2_135m_k1", "--api-key", "secret"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "A key on the command line is shown by ps" in done.stderr
    assert "secret" not in done.stderr
