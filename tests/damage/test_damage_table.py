"""Every file of a run, damaged in every way, against every command that reads runs.

A command makes the file again, or stops with one line that names it, or does not read it. It never believes it, never hangs,
never prints a traceback, and leaves nothing half written.
"""

import contextlib
import io
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from engine.configs.load import config_toml
from engine.runs.files import DIRECTIONS, LIKELIHOODS, MANIFEST, REPORT, ROLLOUTS, SCORES, SUMMARY
from tests.damage.damages import DAMAGES, copy_of
from tests.small_run import config_of, main, make_inputs

MOST_S = 30
MADE_AGAIN, REFUSED, UNREAD = "made again", "refused", "unread"
QUICK = ("cut", "flipped", "a pipe")


@dataclass(frozen=True)
class Outcome:
    status: int
    said: str


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Ends what hangs with an exception."""

    def end(number: int, frame: object) -> None:
        raise TimeoutError(f"hangs: {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(command: Callable[[], None]) -> Outcome:
    """A command's exit status and words. A traceback or a hang is an exception here."""
    said = io.StringIO()
    with within(MOST_S), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            command()
        except typer.Exit as end:
            return Outcome(end.exit_code, said.getvalue())
    return Outcome(0, said.getvalue())


def called(module: str, *arguments: object) -> None:
    """A command of ours in this process, with a command line."""
    import importlib

    app = importlib.import_module(f"engine.commands.{module}").app
    if status := app([str(argument) for argument in arguments], standalone_mode=False):
        raise typer.Exit(status)


COMMANDS: dict[str, Callable[[Path], None]] = {
    "rollout": lambda folder: main(folder, folder / "run"),
    "judge": lambda folder: called("judge", folder / "run", "--judge", "offline"),
    "report": lambda folder: called("report", folder / "run", "--out", folder / "page" / "page.html"),
    "edit": lambda folder: called(
        "edit", "--variant", folder / "small.toml", "--run", folder / "run", "--out", folder / "edited"
    ),
    "power": lambda folder: called("power", folder / "run", "--difference", "0.4"),
}
FILES = (MANIFEST, DIRECTIONS, ROLLOUTS, LIKELIHOODS, SCORES, SUMMARY, REPORT)
# What each command does about each file. Where a file is not named it is not read.
EXPECTED: dict[str, dict[str, str]] = {
    "rollout": {MANIFEST: REFUSED, **dict.fromkeys(FILES[1:], MADE_AGAIN)},
    "judge": {
        **dict.fromkeys((MANIFEST, ROLLOUTS, LIKELIHOODS), REFUSED),
        **dict.fromkeys((SCORES, SUMMARY, REPORT), MADE_AGAIN),
    },
    "report": dict.fromkeys((MANIFEST, ROLLOUTS, SCORES, SUMMARY), REFUSED),
    "edit": {MANIFEST: REFUSED, DIRECTIONS: MADE_AGAIN},
    "power": dict.fromkeys((MANIFEST, ROLLOUTS, SCORES), REFUSED),
}
CASES = [(command, file, damage) for command in COMMANDS for file in FILES for damage in DAMAGES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    make_inputs(folder)
    (folder / "small.toml").write_text(config_toml(config_of(folder)))
    assert outcome(lambda: main(folder, folder / "run")).status == 0
    return folder


def check(whole: Path, folder: Path, command: str, file: str, damage: str) -> str:
    """What the command did; an AssertionError where that is not what it should do."""
    original = (whole / "run" / file).read_bytes()
    before = {path.name for path in (folder / "run").iterdir()}
    DAMAGES[damage](folder / "run" / file)
    found = outcome(lambda: COMMANDS[command](folder))
    assert "Traceback" not in found.said, found.said
    left = {path.name for path in (folder / "run").iterdir()} - before
    assert all(name.startswith(f"{file}.damaged-") for name in left), f"left behind: {left}"
    expected = EXPECTED[command].get(file, UNREAD)
    if expected == REFUSED:
        assert (found.status, found.said.count("error: ")) == (2, 1), found.said
        assert file in found.said
        assert not (folder / "page").exists() and not (folder / "edited").exists()
    else:
        assert found.status == 0, found.said
    if expected == MADE_AGAIN:
        assert left and f"{file} is not what was written there; set aside as {file}.damaged-" in found.said
        again = (folder / "run" / file).read_bytes()
        assert again == original or file in (SUMMARY, REPORT), "made again, and something else"
    return expected


@pytest.mark.parametrize(("command", "file"), [(command, file) for command in COMMANDS for file in FILES])
def test_a_damaged_file_is_made_again_or_refused_by_name(whole: Path, tmp_path: Path, command: str, file: str) -> None:
    for damage in QUICK:
        check(whole, placed(whole, tmp_path / damage), command, file, damage)


def placed(whole: Path, folder: Path) -> Path:
    """The run in a folder of its own; what it read stays where it is."""
    folder.mkdir()
    for entry in whole.iterdir():
        if entry.name not in ("run", ".run.lock"):
            (folder / entry.name).symlink_to(entry)
    copy_of(whole / "run", folder / "run")
    return folder


@pytest.mark.slow
def test_the_whole_table(whole: Path, tmp_path: Path) -> None:
    done, wrong = Counter[str](), []
    for number, (command, file, damage) in enumerate(CASES):
        try:
            done[check(whole, placed(whole, tmp_path / str(number)), command, file, damage)] += 1
        except Exception as error:  # a traceback or a hang of the command's is one of these too
            wrong.append(f"{command}, {file}, {damage}: {type(error).__name__}: {str(error)[:300]}")
    print(f"{len(CASES)} cases: {dict(done)}, {len(wrong)} wrong", file=sys.stderr)
    assert not wrong, "\n".join(wrong)
