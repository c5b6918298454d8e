"""The first hour of three users, command by command, in a fresh clone and a terminal of 80 columns.

One wants results on a model and prompts of their own, one an edited model behind an endpoint, one a table for a paper. The
transcript is printed: `bin/test tests/test_first_hour.py -m slow -s`, and read.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import save_tiny, save_tokenizer
from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.engine]
PLACES = ["desk", "door", "shelf", "lamp"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, with this checkout's environment."""
    folder = tmp_path_factory.mktemp("first") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a tiny chat model, and CSV files of harmless prompts with kinds."""
    folder = tmp_path_factory.mktemp("user")
    sizes = {"max_position_embeddings": 512, "vocab_size": 128}
    save_tokenizer(save_tiny("llama served", folder / "model", sizes=sizes))
    pairs = [f'"Look at my {place} {number}.","What is a {place} {number}?",{place}' for place in PLACES for number in range(32)]
    (folder / "pairs.csv").write_text("\n".join(["declined,answered,category", *pairs]))
    requests = [f'"Do you see my {place}, number {number}?",{place} again' for place in PLACES for number in range(3)]
    (folder / "requests.csv").write_text("\n".join(["prompt,category", *requests]))
    return folder


class Terminal:
    """A pseudo-terminal of 80 columns; `typed` runs a line of a shell to its end and shows what a user sees."""

    def __init__(self, clone: Path, here: Path) -> None:
        self.here = here
        added = {"PATH": f"{clone}/bin:{os.environ['PATH']}", "REFUSAL_ROLLOUT_CACHE": str(here / "cache"), "TERM": "xterm"}
        self.environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | added

    def start(self, line: str) -> "Shown":
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        options = {"cwd": self.here, "env": self.environment, "start_new_session": True}
        process = subprocess.Popen(["bash", "-c", line], stdin=slave, stdout=slave, stderr=slave, **options)
        os.close(slave)
        return Shown(process, master)

    def typed(self, line: str, expected: int = 0) -> str:
        started = time.monotonic()
        shown = self.start(line)
        status = shown.process.wait(900)
        text = shown.text()
        print(f"\n$ {line}\n{text}[{time.monotonic() - started:.0f} s, exit status {status}]")
        assert status == expected
        assert "Traceback" not in text
        return text


class Shown:
    """A command in the terminal. What it prints is read all the time: a full terminal would hold it up."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self.master, self.found = process, master, bytearray()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(self.master, 65536):
                self.found += part

    def text(self) -> str:
        """What the terminal shows in the end: a line that was written over is gone."""
        self.reader.join(20)
        lines = self.found.decode().replace("\r\n", "\n").split("\n")
        return "\n".join(line.rpartition("\r\x1b[K")[2] for line in lines)


@pytest.fixture(scope="module")
def terminal(clone: Path, here: Path) -> Terminal:
    return Terminal(clone, here)


def tables_fit(text: str, title: str) -> bool:
    """Whether no line from a title on is wider than the terminal, but for a path, which stays whole."""
    shown = text[text.index(title) :].splitlines()
    return all(len(line) <= 80 or "/" in line for line in shown)


@pytest.fixture(scope="module")
def rolled_out(terminal: Terminal) -> str:
    """The first user's way to a table; what the last command printed."""
    terminal.typed("refusal-rollout --version")
    assert "It can be used." in terminal.typed("doctor model")
    flags = "--model model --pairs pairs.csv --requests requests.csv --layers 1"
    sizes = "--set sampling.max_tokens=8 --set vllm.kv_cache_memory_bytes=67108864 --set data.num_answerable=4"
    assert "mine.toml written. Next: bin/rollout --variant mine" in terminal.typed(f"new mine {flags} {sizes}")
    assert "Nothing was written or sent." in terminal.typed("rollout --variant mine --dry-run")
    return terminal.typed("rollout --variant mine")


def test_a_model_of_ones_own_gives_a_table(rolled_out: str) -> None:
    assert re.search(r"^mine +declined +12 ", rolled_out, re.MULTILINE)
    assert tables_fit(rolled_out, "Judge: offline")


def test_flags_alone_do_too(terminal: Terminal, rolled_out: str) -> None:
    flags = "--model model --pairs pairs.csv --requests requests.csv --layers 1 --num-answerable 2 --name flags"
    text = terminal.typed(f"rollout {flags} --set sampling.max_tokens=8 --set vllm.kv_cache_memory_bytes=67108864")
    assert re.search(r"^flags +declined +12 ", text, re.MULTILINE)


def test_a_run_is_listed_judged_and_reported(terminal: Terminal, rolled_out: str, here: Path) -> None:
    assert "finished" in terminal.typed("list runs")
    terminal.typed("judge runs/mine --judge offline")
    terminal.typed("report runs/mine")
    assert (here / "runs/mine/report.html").stat().st_size > 10_000


def test_an_edited_model_is_written_and_served(terminal: Terminal, rolled_out: str, here: Path) -> None:
    terminal.typed("edit --variant mine --out edited")
    terminal.typed("edit --verify edited --base model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shown = terminal.start(f"serve --variant mine --steerable --port {port}")
    try:
        with served(shown.process, f"http://127.0.0.1:{port}") as url:
            models = json.load(urllib.request.urlopen(f"{url}/v1/models", timeout=20))
            body = json.dumps({"model": "mine", "prompt": "Is it on?", "max_tokens": 4, "alpha": 0.5}).encode()
            asked = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
            answer = urllib.request.urlopen(asked, timeout=60)
    finally:
        os.killpg(shown.process.pid, signal.SIGTERM)
        print(shown.text()[-2000:])
    assert [card["id"] for card in models["data"]] == ["base", "mine"]
    assert answer.headers["x-refusal-variant"].startswith("mine@")


@contextlib.contextmanager
def served(process: subprocess.Popen[bytes], url: str) -> Iterator[str]:
    def is_up() -> bool:
        assert process.poll() is None, "the server stopped"
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(f"{url}/health", timeout=2).status == 200)
        return False

    wait_for(is_up, 400)
    yield url


def test_a_sweep_gives_a_table_for_a_paper(terminal: Terminal, rolled_out: str, here: Path) -> None:
    flags = "--model model --pairs pairs.csv --requests requests.csv --subspaces none --exhaustive --out runs/mine-sweep"
    sizes = "--set sampling.max_tokens=8 --set vllm.kv_cache_memory_bytes=67108864 --set sweep.controls=0 --set sweep.finalists=1"
    text = terminal.typed(f"sweep {flags} {sizes}")
    assert "To choose among" in text
    assert tables_fit(text, "Confirmation on test prompts")
    assert r"\begin{tabular}" in terminal.typed(f"sweep {flags} {sizes} --format latex")
    (winner,) = (here / "runs/mine-sweep/variants").glob("*.toml")
    assert winner.stem.startswith("model-layer")
    terminal.typed("report runs/mine runs/mine-sweep --out both.html")
    assert "Subspace & k & Compliance" in (here / "both.tex").read_text()


def test_what_cannot_be_is_one_message(terminal: Terminal) -> None:
    assert "Did you mean" in terminal.typed("rollout --variant mine --set sampling.max_token=3", expected=2)
    assert "Model folder" in terminal.typed("rollout --model nowhere --layers 1 --pairs pairs.csv", expected=2)
